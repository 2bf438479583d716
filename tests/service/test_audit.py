import json

import pytest

from fettle.errors import StorageError
from fettle.service.audit import FILE, Audit
from fettle.service.callers import Caller
from fettle.service.store import Store
from fettle.service.upkeep import Upkeep
from tests.service.databases import running_postgres

CALLER = Caller("acme", "key-1", admin=False, address="10.0.0.1")


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


async def test_what_happens_is_in_the_file_and_in_the_catalogue(store, tmp_path):
    audit = Audit(store, tmp_path)
    audit.note("run_made", CALLER, subject="run-1")
    await audit.flush()
    ((row,), total) = await store.audit()
    (line,) = lines(tmp_path)
    assert total == 1
    assert (row.event, row.tenant, row.key, row.subject, row.address) == (
        "run_made",
        "acme",
        "key-1",
        "run-1",
        "10.0.0.1",
    )
    assert line == {**line, "event": "run_made", "tenant": "acme", "key": "key-1", "subject": "run-1", "times": 1}
    assert line["at"] == row.at.isoformat()


async def test_a_flood_of_the_same_is_one_row(store, tmp_path):
    audit = Audit(store, tmp_path)
    for _ in range(10_000):
        audit.note("key_refused", address="10.0.0.1")
    audit.note("key_refused", address="10.0.0.2")
    await audit.flush()
    rows, _ = await store.audit()
    assert sorted((row.address, row.times) for row in rows) == [("10.0.0.1", 10_000), ("10.0.0.2", 1)]


async def test_nothing_new_writes_nothing(store, tmp_path):
    audit = Audit(store, tmp_path)
    audit.note("run_made", CALLER, subject="run-1")
    await audit.flush()
    await audit.flush()
    assert (await store.audit())[1] == 1
    assert len(lines(tmp_path)) == 1


async def test_the_file_is_for_the_operator_alone(store, tmp_path):
    audit = Audit(store, tmp_path)
    audit.note("run_made", CALLER)
    await audit.flush()
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


async def test_while_the_catalogue_is_away_the_file_goes_on_and_nothing_is_lost_or_doubled(tmp_path):
    with running_postgres() as server:
        store = await Store.opened(server.new_database(), tmp_path)
        audit = Audit(store, tmp_path)
        server.stop()
        for number in range(3):
            audit.note("run_made", CALLER, subject=f"run-{number}")
            with pytest.raises(StorageError):
                await audit.flush()
        assert [line["subject"] for line in lines(tmp_path)] == ["run-0", "run-1", "run-2"]
        server.start()
        await audit.flush()
        rows, _ = await store.audit()
        assert [row.subject for row in rows] == ["run-2", "run-1", "run-0"]
        assert len(lines(tmp_path)) == 3
        await store.close()


async def test_upkeep_goes_on_after_a_failure_and_writes_once_more_at_the_end(caplog):
    calls = []

    async def failing() -> None:
        calls.append("failing")
        raise StorageError("the disk is full")

    async def working() -> None:
        calls.append("working")

    upkeep = Upkeep(failing, working, interval_s=60)
    upkeep.start()
    await upkeep.now()
    await upkeep.stop()
    assert calls == ["failing", "working"] * 2
    assert caplog.text.count("the disk is full") == 1
