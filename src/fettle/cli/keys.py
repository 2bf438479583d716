"""``fettle keys``: who may call a training service. Works on its catalogue, whether the service runs or not."""

import asyncio
import json
import shlex
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from fettle.errors import StorageError

if TYPE_CHECKING:
    from fettle.service.entries import Key
    from fettle.service.keys import Keyring

keys = typer.Typer(help="Make, list and revoke the keys of a training service.", no_args_is_help=True)

State = Annotated[Path, typer.Option("--state", help="The service's state folder.")]
Database = Annotated[
    str | None, typer.Option("--database-url", help="The service's database, where it is not in the state folder.")
]
AsJSON = Annotated[bool, typer.Option("--json", help="As JSON.")]
STATE = Path("fettle-service")
LINE = "{:<12}{:<20}{:<8}{:<18}{:<18}{:<24}{}"

Result = TypeVar("Result")


@keys.command("create")
def create(
    tenant: Annotated[str, typer.Option(help="Who owns what is made with it; a new name is a new tenant.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="It may make keys and take payments, too.")] = False,
    days: Annotated[float | None, typer.Option(help="How long it is good for; else until it is revoked.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="How often it may ask.")] = None,
    state: State = STATE,
    database_url: Database = None,
    as_json: AsJSON = False,
) -> None:
    """Make a key. It is shown once."""
    if not _is_there(state, database_url):
        typer.echo(
            f"There is no service in {state} yet: this key is for one that is started with its state there", err=True
        )
    key, secret = _with_keyring(
        state,
        database_url,
        lambda ring: ring.create(tenant, name=name, admin=admin, days=days, requests_per_minute=requests_per_minute),
    )
    if as_json:
        print(json.dumps({"secret": secret, **_row(key)}))
        return
    print(secret)
    place = _place(state, database_url)
    typer.echo(
        f"It is shown this once. Its id is {key.id}: revoke it with fettle keys revoke {key.id}{place}", err=True
    )


@keys.command("list")
def show(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    state: State = STATE,
    database_url: Database = None,
    as_json: AsJSON = False,
) -> None:
    """List keys, newest first."""
    _check_there(state, database_url)
    found = _with_keyring(state, database_url, lambda ring: ring.keys(tenant))
    if as_json:
        print(json.dumps([_row(key) for key in found]))
        return
    print(LINE.format("id", "tenant", "may", "made", "last used", "state", "name"))
    for key in found:
        may, made, used = "admin" if key.admin else "use", _minute(key.created_at), _minute(key.last_used_at)
        print(LINE.format(key.id, key.tenant, may, made, used, _state(key), key.name))


@keys.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="As fettle keys list shows it.")],
    state: State = STATE,
    database_url: Database = None,
) -> None:
    """Make a key good for nothing; a service that runs refuses it within 5 seconds."""
    _check_there(state, database_url)
    key = _with_keyring(state, database_url, lambda ring: ring.revoke(key_id))
    print(f"{key.id} of {key.tenant} is revoked")


def _with_keyring(state: Path, database_url: str | None, act: Callable[["Keyring"], Awaitable[Result]]) -> Result:
    from fettle.service.audit import Audit
    from fettle.service.keys import Keyring
    from fettle.service.store import Store

    folder = state if database_url is None or state.is_dir() else None

    async def acted() -> Result:
        store = await Store.opened(database_url, state)
        try:
            audit = Audit(store, folder)
            result = await act(Keyring(store, audit))
            await audit.flush()
            return result
        finally:
            await store.close()

    return asyncio.run(acted())


def _check_there(state: Path, database_url: str | None) -> None:
    """A mistyped folder is no service without keys.

    Raises:
        StorageError: there is no catalogue in it.
    """
    if not _is_there(state, database_url):
        raise StorageError(f"there is no service in {state}: name its folder with --state, or its --database-url")


def _is_there(state: Path, database_url: str | None) -> bool:
    """Whether there is a catalogue; a database is asked when it is opened."""
    from fettle.service.store import CATALOGUE

    return database_url is not None or (state / CATALOGUE).is_file()


def _place(state: Path, database_url: str | None) -> str:
    """The options that name the same catalogue again; an address, which may hold a password, is not repeated."""
    if database_url is not None:
        return " --database-url ..."
    return "" if state == STATE else f" --state {shlex.quote(str(state))}"


def _row(key: "Key") -> dict[str, str | bool | int | None]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "admin": key.admin,
        "created_at": key.created_at.isoformat(),
        "last_used_at": None if key.last_used_at is None else key.last_used_at.isoformat(),
        "requests_per_minute": key.requests_per_minute,
        "state": _state(key),
    }


def _state(key: "Key") -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "good"
    when = "expired" if key.expires_at <= datetime.now(key.expires_at.tzinfo) else "until"
    return f"{when} {_minute(key.expires_at)}"


def _minute(at: datetime | None) -> str:
    return "never" if at is None else f"{at:%Y-%m-%d %H:%M}"
