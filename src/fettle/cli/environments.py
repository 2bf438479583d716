"""``fettle environments``: serve them to others, see what there is, and try one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fettle.cli import waking
from fettle.cli.environment_new import new
from fettle.cli.train import Overrides
from fettle.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from fettle.config import EnvironmentConfig, Remote

environments = typer.Typer(help="Serve environments over gRPC, list them, try one, write one.", no_args_is_help=True)
environments.command("new")(new)

TokenVariable = Annotated[str | None, typer.Option(help="Environment variable that holds the token.")]
TokenFile = Annotated[Path | None, typer.Option(help="File that holds the token.")]
Authorities = Annotated[
    Path | None, typer.Option("--tls", help="Speak TLS, with a server whose certificate one of these has signed; PEM.")
]
LINE = "{:<24} {:<22} {}"
REPLY = "<answer>0</answer>"
PATIENCE = 5.0
"""Seconds for which somebody at a terminal waits for a server that is away."""


@environments.command("serve")
def serve(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Environments by their type; and settings, as environments.arithmetic.digits=3."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file of settings, environments among them.")] = None,
    model: Annotated[Path | None, typer.Option(help="A model's folder, which ModelService answers from.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    token_variable: TokenVariable = None,
    token_file: TokenFile = None,
    tls_cert: Annotated[Path | None, typer.Option(help="A certificate chain in PEM, for TLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's key in PEM.")] = None,
    client_authorities: Annotated[
        Path | None, typer.Option(help="Callers must show a certificate that one of these has signed; PEM.")
    ] = None,
    reflection: Annotated[bool, typer.Option("--reflection", help="Describe the services to tools.")] = False,
) -> None:
    """Serve environments over gRPC, until SIGTERM; episodes under way may then end."""
    try:
        from fettle.cli import environment_server
    except ModuleNotFoundError as error:
        raise _without_extra(error) from error
    given: dict[str, Any] = {
        "model": model,
        "host": host,
        "port": port,
        "token_variable": token_variable,
        "token_file": token_file,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "client_authorities": client_authorities,
        "reflection": reflection or None,
    }
    settings = environment_server.settings_of(names or (), config, given)
    environment_server.run(settings, routing=environment_server.ROUTING in (names or ()))


@environments.command("list")
def show(
    address: Annotated[str | None, typer.Argument(help="A server, as HOST:PORT; without it, the types here.")] = None,
    token_variable: TokenVariable = None,
    token_file: TokenFile = None,
    tls: Authorities = None,
) -> None:
    """List the environments of a server, or the types there are."""
    if address is None:
        _show_types()
        return
    try:
        from fettle.environments.remote.client import offered
    except ModuleNotFoundError as error:
        raise _without_extra(error) from error
    for each in offered(_remote(address, "-", token_variable, token_file, tls)):
        print(LINE.format(each.environment_id, each.environment_type, ", ".join(each.settings)))


def _show_types() -> None:
    from fettle.environments.plugins import described, plugins
    from fettle.environments.table import ENVIRONMENTS, EXTRAS

    for kind in ENVIRONMENTS:
        needs = f"needs fettle[{EXTRAS[kind]}]" if kind in EXTRAS else ""
        print(LINE.format(kind.model_fields["type"].default, needs, (kind.__doc__ or "").partition("\n")[0]))
    for name, points in plugins().items():
        for point in points:
            try:
                function, settings = described(point)
                says = (function.__doc__ or "").partition("\n")[0] or point.value
                says += f" ({', '.join(settings.model_fields)})" if settings.model_fields else ""
            except ConfigError as error:
                says = error.message
            print(LINE.format(name, f"of {point.dist.name if point.dist else point.module}", says))


@environments.command("check")
def check(
    environment: Annotated[str, typer.Argument(help="A type, or HOST:PORT/NAME for one that is served.")],
    overrides: Overrides = None,
    reply: Annotated[str, typer.Option(help="What is said in each episode.")] = REPLY,
    episodes: Annotated[int, typer.Option(min=1, help="How many tasks to begin.")] = 8,
    token_variable: TokenVariable = None,
    token_file: TokenFile = None,
    tls: Authorities = None,
) -> None:
    """Play tasks of an environment with one and the same reply, and tell what came of it."""
    from fettle.cli.environment_check import checked

    address, slash, name = environment.rpartition("/")
    if slash:
        settings = _settings(overrides or [])
        config: EnvironmentConfig = _remote(address, name, token_variable, token_file, tls, **settings)
    else:
        config = _local(environment, overrides or [])
    waking.run(checked(config, reply=reply, episodes=episodes))


def _local(kind: str, overrides: list[str]) -> "EnvironmentConfig":
    from fettle.cli.worlds import settings_named, types_of_worlds
    from fettle.config import EnvironmentServerConfig
    from fettle.config.load import load_as
    from fettle.environments.plugins import plugins

    named = settings_named(kind)
    if named is None:
        known = [*types_of_worlds(), *plugins()]
        near = did_you_mean(kind, known)
        raise ConfigError(f"there is no environment {kind!r}, only {', '.join(known)}{near}")
    given = [f"{key}={value}" for key, value in named.items()]
    laid_over = [f"environments.it.{each}" for each in (*given, *overrides)]
    return load_as(EnvironmentServerConfig, None, laid_over).environments["it"]


def _settings(overrides: list[str]) -> dict[str, Any]:
    from fettle.config.document import read

    pairs = (each.partition("=") for each in overrides)
    settings = {key: read(value, str, (key,)).tree for key, _, value in pairs}
    beside: dict[str, Any] = {name: settings.pop(name) for name in ("system", "seed", "heldout") if name in settings}
    return {**beside, "settings": settings}


def _remote(
    address: str, name: str, variable: str | None, file: Path | None, authorities: Path | None, **settings: Any
) -> "Remote":
    from pydantic import ValidationError

    from fettle.config import Remote, RemoteTLS

    try:
        return Remote(
            address=address,
            environment=name,
            token_variable=variable,
            token_file=None if file is None else str(file),
            tls=None if authorities is None else RemoteTLS(authorities=str(authorities)),
            patience=PATIENCE,
            **settings,
        )
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def _without_extra(error: ModuleNotFoundError) -> ConfigError:
    if (error.name or "").startswith("fettle"):
        raise error
    return ConfigError(f"this needs the package {error.name}, which is not installed: pip install 'fettle[remote]'")
