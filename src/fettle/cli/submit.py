"""``fettle submit``: a recipe as a job of a Ray cluster that is there, followed, asked after, stopped."""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.exits import FAILED, INTERRUPTED
from fettle.cli.invoked import FETTLE
from fettle.cli.train import Overrides, Runs, computed
from fettle.errors import ConfigError

if TYPE_CHECKING:
    from fettle.config import RunConfig
    from fettle.deploy.jobs import Jobs

ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Variables that Ray's client would believe rather than ``--address``."""


def submit(
    recipe: Annotated[Path | None, typer.Argument(help="A YAML recipe; see configs/.")] = None,
    overrides: Overrides = None,
    *,
    address: Annotated[str, typer.Option(envvar=ADDRESSES[0], help="Of the cluster's dashboard, as http://HEAD:8265.")],
    run_id: Annotated[
        str | None, typer.Option("--id", help="The run's, of which there is one; else made of the recipe.")
    ] = None,
    runs: Runs = Path("runs"),
    again: Annotated[bool, typer.Option("--again", help="Go on with a run of that id that has ended.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Print what it prints until it ends.")] = False,
    variable: Annotated[
        list[str] | None, typer.Option("--env", help="For the run: NAME=VALUE, or NAME as it is here; several times.")
    ] = None,
    cpus: Annotated[float, typer.Option(min=0, help="Processors for the loop, on whichever machine has them.")] = 1,
    status: Annotated[str | None, typer.Option(metavar="ID", help="Say how a run is doing.")] = None,
    logs: Annotated[str | None, typer.Option(metavar="ID", help="Print what a run has printed.")] = None,
    stop: Annotated[str | None, typer.Option(metavar="ID", help="Have a run save a checkpoint and end.")] = None,
) -> None:
    """Train on a Ray cluster that is there, without staying. The runs' folder is one that all its machines see."""
    named = [each for each in (recipe, status, logs, stop) if each is not None]
    if len(named) != 1:
        raise ConfigError("name one thing: a recipe to submit, or a run with --status ID, --logs ID or --stop ID")
    packet = None if recipe is None else _packet(recipe, overrides or (), variable or ())
    jobs = _jobs(address)
    if packet is not None:
        config, variables = packet
        run = run_id or _id_of(config)
        _begin(jobs, run, config, variables, runs=runs.resolve() / run, again=again, cpus=cpus)
        _tell(address, run)
        if follow:
            _follow(jobs, address, run)
    elif logs is not None:
        _follow(jobs, address, logs) if follow else print(jobs.printed(logs), end="")
    elif stop is not None:
        print(f"{stop} {'is saving a checkpoint, and ends then' if jobs.stop(stop) else 'had ended already'}")
    elif status is not None:
        standing = jobs.standing(status)
        print(f"{status} is {standing.status}" + (f": {standing.message}" if standing.message else ""))


def _packet(recipe: Path, overrides: Sequence[str], given: Sequence[str]) -> "tuple[RunConfig, dict[str, str]]":
    """The recipe as the cluster computes it, and its variables; checked here rather than there."""
    from fettle.config.load import load

    config = load(recipe, [*overrides, *computed(recipe, type="ray", address="auto")])
    return config, _variables(given)


def _variables(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals and name not in os.environ:
            raise ConfigError(f"--env {name} hands on what is in {name} here, and there is nothing: write {name}=VALUE")
        found[name] = value if equals else os.environ[name]
    return found


def _id_of(config: "RunConfig") -> str:
    """The same for the same recipe, so that it is not run twice by mistake."""
    from fettle.config.load import dump

    return f"{config.name}-{hashlib.sha256(dump(config).encode()).hexdigest()[:8]}"


def _jobs(address: str) -> "Jobs":
    for name in ADDRESSES:
        os.environ.pop(name, None)
    try:
        from fettle.deploy.jobs import Jobs
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise ConfigError("jobs are handed to Ray, and Ray is not installed: pip install 'fettle[cluster]'") from error
    return Jobs(address)


def _begin(
    jobs: "Jobs",
    run: str,
    config: "RunConfig",
    variables: Mapping[str, str],
    *,
    runs: Path,
    again: bool,
    cpus: float,
) -> None:
    from fettle.deploy.jobs import command, packed

    begin = jobs.go_on if again else jobs.begin
    with tempfile.TemporaryDirectory(prefix="fettle-submit-") as folder:
        sent = packed(config, Path.cwd(), Path(folder))
        begin(run, command(str(runs)), Path(folder), variables=variables, cpus=cpus)
    files = f", with {', '.join(map(str, sent))}" if sent else ""
    print(f"submitted {run}{files}; its folder will be in {runs}")


def _tell(address: str, run: str) -> None:
    base = f"{FETTLE} submit --address {address}"
    print(f"how it does:  {base} --status {run}")
    print(f"what it says: {base} --logs {run} --follow")
    print(f"to end it:    {base} --stop {run}")


def _follow(jobs: "Jobs", address: str, run: str) -> None:
    """Until the run ends; Ctrl-C leaves it as it is."""

    async def followed() -> None:
        async for lines in jobs.following(run):
            print(lines, end="", flush=True)

    try:
        asyncio.run(followed())
    except KeyboardInterrupt:
        print(
            f"\nfettle: {run} goes on; follow it again with: {FETTLE} submit --address {address} --logs {run} --follow"
        )
        raise typer.Exit(INTERRUPTED) from None
    standing = jobs.standing(run)
    print(f"{run} is {standing.status}: {standing.message}")
    if standing.status != "SUCCEEDED":
        raise typer.Exit(FAILED)
