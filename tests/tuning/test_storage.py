"""Storages: each keeps the trials of a study, and what is wrong with one is a sentence."""

import socket
import sqlite3

import pytest

from fettle.errors import ConfigError, StorageError
from fettle.tuning import Desk, Outcome, line_of, storage, work
from tests.service.databases import running_postgres


def worked(desk) -> list:
    with desk.folder.worker() as owner:
        work(desk.search(owner), lambda _: Outcome(value=1.0), lambda _: None)
    return [line_of(trial).told for trial in Desk.at(desk.folder, desk.study, steps=1).search("").all()]


def test_sqlite_keeps_them_and_one_that_is_locked_is_told(begun, monkeypatch):
    desk = begun(trials=1, storage="sqlite")
    assert worked(desk) == ["finished"]
    monkeypatch.setattr(storage, "WAIT_S", 0)
    with sqlite3.connect(desk.folder.path / "study.db", isolation_level=None) as locking:
        locking.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match=r"storage sqlite.* is locked by another process") as caught:
            Desk.at(desk.folder, desk.study, steps=1)
    assert "\n" not in caught.value.message


def test_postgresql_keeps_them(begun):
    with running_postgres() as server:
        assert worked(begun(trials=1, storage=server.url("postgres"))) == ["finished"]


def test_a_database_that_cannot_be_reached_is_told_without_its_password(begun):
    with socket.create_server(("127.0.0.1", 0)) as door:
        nobody = door.getsockname()[1]
    with pytest.raises(StorageError, match=r"storage postgresql\+psycopg://us:\*\*\*@127.0.0.1:\d+/x cannot be used"):
        begun(storage=f"postgresql://us:secret@127.0.0.1:{nobody}/x")


@pytest.mark.parametrize("address", ["redis://here", "a file", "mysql://us@here/x"])
def test_what_is_no_storage_is_told(begun, address):
    with pytest.raises(ConfigError, match=r"storage is .*, which is none: write journal or sqlite"):
        begun(storage=address)
