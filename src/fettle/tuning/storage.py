"""Where a study's trials are kept: a journal, SQLite or PostgreSQL, and what is said where that fails."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from fettle.errors import ConfigError, StorageError

DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
WAIT_S = 30
"""For a lock that another process has on a database."""

optuna.logging.set_verbosity(logging.ERROR)


def opened(storage: str, folder: Path) -> BaseStorage:
    """The storage that a study in ``folder`` names.

    Raises:
        ConfigError: it names none.
        StorageError: it cannot be opened.
    """
    if storage == "journal":
        path = str(folder / "journal.log")
        with told(storage):
            return JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
    address = f"sqlite:///{(folder / 'study.db').resolve()}" if storage == "sqlite" else storage
    try:
        url = make_url(address)
    except ArgumentError:
        raise ConfigError(_unknown(storage)) from None
    if url.drivername.partition("+")[0] not in DRIVERS:
        raise ConfigError(_unknown(storage))
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    waits = "timeout" if url.get_backend_name() == "sqlite" else "connect_timeout"
    with told(url.render_as_string(hide_password=True)):
        return RDBStorage(
            url.render_as_string(hide_password=False),
            engine_kwargs={"connect_args": {waits: WAIT_S}, "pool_pre_ping": True},
        )


@contextlib.contextmanager
def told(storage: str) -> Iterator[None]:
    """What goes wrong with a storage in the block, as one sentence.

    Raises:
        StorageError: it does.
    """
    try:
        yield
    except (SQLAlchemyError, OptunaError, OSError) as error:
        raise StorageError(_sentence(storage, error)) from error


def _unknown(storage: str) -> str:
    return (
        f"storage is {storage!r}, which is none: write journal or sqlite, for a file in the study's folder, or an "
        "address such as postgresql://user@host/name"
    )


def _sentence(storage: str, error: Exception) -> str:
    said = " ".join(str(getattr(error, "__cause__", None) or error).split())[:200]
    if "locked" in said:
        return f"the study's storage {storage} is locked by another process, and stayed so for {WAIT_S} s: end that one"
    return f"the study's storage {storage} cannot be used ({said}): see that it is there and may be written to"
