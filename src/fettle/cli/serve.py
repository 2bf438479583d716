"""``fettle serve``: a training service over HTTP."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fettle.errors import ConfigError

if TYPE_CHECKING:
    from fettle.config import ServiceConfig


def serve(
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings, as a.b=value.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model to serve, as PATH or NAME=PATH; may be given several times.")
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(help="A further name of a served model, as NAME=MODEL; several times.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file of settings.")] = None,
    state: Annotated[Path | None, typer.Option(help="Folder of everything that outlives the process.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    database_url: Annotated[str | None, typer.Option(help="The catalogue's database, in place of SQLite.")] = None,
    artifacts_url: Annotated[str | None, typer.Option(help="Where finished checkpoints are also kept.")] = None,
    backend: Annotated[
        Literal["local", "ray"] | None, typer.Option(help="Where it computes: in this process, or on a Ray cluster.")
    ] = None,
    tls_cert: Annotated[str | None, typer.Option(help="A certificate chain, for HTTPS.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="The certificate's key.")] = None,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Ask nobody for a key; on a loopback address only.")
    ] = False,
) -> None:
    """Serve models to be trained and sampled over HTTP."""
    from fettle.config import ServiceConfig
    from fettle.config.load import load_as

    given: dict[str, Any] = {
        "state": None if state is None else str(state),
        "host": host,
        "port": port,
        "database_url": database_url,
        "artifacts_url": artifacts_url,
        "engine.type": backend,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "auth": "none" if insecure_no_auth else None,
    }
    laid_over = [f"{name}={json.dumps(value)}" for name, value in given.items() if value is not None]
    if model:
        laid_over.append(f"models={json.dumps(_served(model, alias or ()))}")
    elif alias:
        raise ConfigError("--alias names a model that --model names: give both, or write aliases into the settings")
    elif config is None and not any(given.startswith("models") for given in overrides or ()):
        raise ConfigError(
            "there is nothing to serve: name a model with --model PATH, or models in a file with --config"
        )
    _serve(load_as(ServiceConfig, config, [*(overrides or ()), *laid_over]))


def _served(models: Sequence[str], aliases: Sequence[str]) -> list[dict[str, Any]]:
    """The settings ``models``."""
    found: dict[str, dict[str, Any]] = {}
    for given in models:
        name, equals, path = given.partition("=")
        if not equals:
            name, path = Path(given).name, given
        _check_no_run(Path(path))
        found[name] = {"name": name, "path": path, "aliases": []}
    for given in aliases:
        name, _, other = given.partition("=")
        if other not in found:
            raise ConfigError(f"--alias {given}: write NAME=MODEL, with one of {', '.join(found)}")
        found[other]["aliases"].append(name)
    return list(found.values())


def _check_no_run(folder: Path) -> None:
    if (folder / "config.yaml").is_file():
        raise ConfigError(
            f"--model {folder} is a run: name one of the models in it, such as the folder of a checkpoint"
        )


def _serve(settings: "ServiceConfig") -> None:
    from fettle.service.logs import log_to

    log_to()

    from fettle.cli import serving  # only now: torch takes seconds, and a slip in a setting should be told at once

    serving.run(settings)
