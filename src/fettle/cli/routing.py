"""``fettle router``: which policy a router uses, and what it would decide."""

import getpass
import json
import math
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.exits import FAILED, REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fettle.router.decisions import Decision
    from fettle.router.evidence import Comparison
    from fettle.router.promotion import Status, Version
    from fettle.router.teams import Agent

Registry = Annotated[Path | None, typer.Option(help="The folder of promoted policies; that of the settings otherwise.")]
Why = Annotated[str, typer.Option(help="For the audit log.")]


def promote(
    run: Annotated[Path, typer.Argument(help="A folder that a run left, and that was evaluated.")],
    registry: Registry = None,
    why: Why = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
) -> None:
    """Put a policy to use, where held-out evidence says that it is better; else say why not, and end with 4."""
    from fettle.router.promotion import promote as promoted
    from fettle.router.promotion import verdict

    place = _place(registry)
    if dry_run:
        found = verdict(run, place)
        if found.refused is not None or found.comparison is None:
            typer.echo(f"fettle: would be refused: {found.refused}", err=True)
            raise typer.Exit(REFUSED)
        print(f"{run} would be promoted: it earns {_evidence(found.comparison)}")
        return
    done = promoted(run, place, who=_who(), why=why)
    print(f"version {done.version} is in use in {place}; before: {_named(done.before)}")
    print(f"it earns {_evidence(done.comparison)}")


def rollback(
    registry: Registry = None,
    to: Annotated[int | None, typer.Option(min=0, help="A version; 0 for none, and the fixed mode.")] = None,
    why: Why = "",
) -> None:
    """Go back to the version that was in use before the present one, or to another that was promoted."""
    from fettle.router.promotion import rollback as gone_back

    place = _place(registry)
    version = gone_back(place, who=_who(), why=why, to=to)
    print(f"{_named(version)} is in use in {place}" + ("" if version else ": routers take the fixed mode"))


def status(registry: Registry = None) -> None:
    """What is in use, on what evidence, what else there is, and what was asked last. Ends with 1 if it is damaged."""
    from fettle.router.promotion import status as found

    place = _place(registry)
    seen = found(place)
    for line in _told(place, seen):
        print(line)
    for number in seen.audit.broken:
        typer.echo(
            f"fettle: line {number} of the audit log was cut short, altered, or follows one that was or is gone: hold "
            f"{place} against a copy of it, and see who may write there",
            err=True,
        )
    if seen.damage is not None:
        typer.echo(
            f"fettle: what is in use cannot be used: {seen.damage}: by its number with fettle router rollback --to, "
            "where 0 is none",
            err=True,
        )
        raise typer.Exit(FAILED)


def route(
    agent: Annotated[list[str], typer.Option(help="NAME, NAME:USD or NAME:USD:SECONDS; the first one answers.")],
    feature: Annotated[list[str] | None, typer.Option(help="NAME=NUMBER, of the task.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings; the shipped ones otherwise.")] = None,
    request: Annotated[str, typer.Option(help="Its id, which says on which side of a canary it is.")] = "by-hand",
    confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of the first agent in its own answer.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object.")] = False,
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings laid over the file, as a.b=value.")] = None,
) -> None:
    """Decide one request, and say why. Ends with 4 where no mode keeps within the caps."""
    from fettle.cli.recipes import shipped
    from fettle.config import RoutingConfig, load_as
    from fettle.router.routing import Router

    settings = load_as(RoutingConfig, config or shipped("policy/routing.yaml"), overrides or ())
    task, agents = _task(feature or ()), [_agent(each) for each in agent]
    with closing(Router(settings)) as router:
        decision = router.route(task, agents, request=request, confidence=confidence)
    if as_json:
        print(json.dumps(decision.as_json(), indent=2))
    else:
        for line in _explained(decision):
            print(line)
    if decision.mode is None:
        raise typer.Exit(REFUSED)


def _place(registry: Path | None) -> Path:
    from fettle.config import RoutingConfig

    return registry or Path(RoutingConfig().registry)


def _who() -> str:
    """Who types, as the system knows them."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


def _evidence(found: "Comparison") -> str:
    return (
        f"{found.mean:+.4f} a decision over {found.against}, 95 % [{found.low:+.4f}, {found.high:+.4f}], "
        f"{found.seeds} held-out seeds (simulated)"
    )


def _named(version: int) -> str:
    return f"version {version}" if version else "nothing"


def _told(place: Path, seen: "Status") -> "Iterator[str]":
    """A registry for people."""
    if seen.in_use is None and not seen.versions:
        yield f"{place}: nothing was ever promoted; routers take the fixed mode"
    now = None if seen.in_use is None else seen.in_use.version
    if seen.in_use is not None:
        entry = seen.in_use.entry
        event = {"promoted": "promoted", "rolled_back": "gone back to"}.get(entry["event"], entry["event"])
        why = f": {entry['why']}" if entry["why"] else ""
        yield f"{place}: {_named(seen.in_use.version)} is in use, {event} {_at(entry)} by {entry['who']}{why}"
    for version in reversed(seen.versions):
        yield f"  {'>' if version.number == now else ' '} {version.number:<4}{_of(version)}"
    entries = seen.audit.entries
    refused = [each for each in entries if each["event"] == "refused"]
    yield f"  {len(entries)} entries in the audit log, {len(refused)} of them refusals"
    if refused:
        yield f"  last refused, {_at(refused[-1])} to {refused[-1]['who']}: {refused[-1].get('reason')}"


def _at(entry: "Mapping[str, str]") -> str:
    return f"{entry['at'][:16].replace('T', ' ')} UTC"


def _of(version: "Version") -> str:
    if version.damage is not None:
        return f"damaged: {version.damage}"
    from fettle.router.evidence import Comparison

    found = version.manifest
    return f"{_at(found)} by {found['who']}: {_evidence(Comparison(**found['comparison']))}"


def _explained(decision: "Decision") -> "Iterator[str]":
    """A decision for people."""
    if decision.mode is None:
        yield f"nobody is to be asked: {decision.why}"
        yield "  raise the cap that is named, or name agents that cost and take less"
        return
    rounds = "1 round" if decision.rounds == 1 else f"{decision.rounds} rounds"
    who = ", ".join(agent.name for agent in decision.agents)
    yield f"{decision.mode}: {who}; {rounds}, {decision.usd:g} USD, {decision.p95_s:g} s at the 95th percentile"
    yield f"  by {decision.source}, at exposure {decision.exposure}: {decision.why}"
    for mode, reason in decision.ruled_out.items():
        yield f"  not {mode}: {reason}"
    said = decision.opinion
    if said is None:
        return
    whose = "a run that was never promoted" if said.version is None else f"version {said.version}"
    yield f"  {whose} says (learned in a simulator), and expects {said.value:.3f} from here on:"
    for mode, probability in said.probabilities.items():
        row = {} if said.contributions is None else {name: by[mode] for name, by in said.contributions.items()}
        most = sorted(row, key=lambda name: -abs(row[name]))[:4]
        reasons = "".join(f"   {name} {row[name]:+.2f}" for name in most)
        yield f"    {mode:<12}{probability:7.3f}{reasons}"


def _task(features: "Sequence[str]") -> dict[str, float]:
    from fettle.errors import ConfigError

    task: dict[str, float] = {}
    for text in features:
        name, _, number = text.partition("=")
        if name in task:
            raise ConfigError(f"feature {name} is given twice: leave one of the two out")
        task[name] = _number(number if name else "", text, "NAME=NUMBER, as difficulty=0.8")
    return task


def _agent(text: str) -> "Agent":
    from fettle.router.teams import Agent

    name, *numbers = text.split(":")
    if len(numbers) > 2 or not name:
        numbers = [""]
    return Agent(name, *(_number(each, text, "NAME:USD:SECONDS, as helper:0.02:4") for each in numbers))


def _number(number: str, text: str, form: str) -> float:
    from fettle.errors import ConfigError

    try:
        found = float(number)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ConfigError(f"{text or 'nothing'} is not of the form {form}: write it so")
    return found
