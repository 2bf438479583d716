import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from fettle.config import LoRA, PolicySpec
from fettle.errors import ConfigError, DataError, StorageError
from fettle.service import tables
from fettle.service.entries import AuditRow, CheckpointEntry, Run, SamplerRow, Session
from fettle.service.store import CATALOGUE, Store, database_url
from tests.service.databases import running_postgres

NOW = datetime(2026, 1, 31, 12, 30, 15, 123456, tzinfo=UTC)
SPEC = PolicySpec(model="tiny", lora=LoRA(rank=4, targets=("q_proj", "v_proj")))
RUN = Run("run-1", "acme", "a name", "tiny", SPEC, "active", NOW, NOW, metadata={"ünïcode": "✓"}, session="s")
CHECKPOINT = CheckpointEntry(
    "run-1/weights/one", "acme", "run-1", "weights", "one", "tiny", SPEC, "/a/folder", NOW, optimizer=True, nbytes=2**40
)


async def test_what_is_put_in_comes_out_again(store):
    sampler = SamplerRow("sampler-1", "acme", "tiny", "run-1/weights/one", "/a/folder", NOW)
    session = Session("session-1", "acme", NOW, "key", {"a": "b"}, ("x", "y"), NOW)
    await store.put_run(RUN)
    await store.put_sampler(sampler)
    await store.put_checkpoint(CHECKPOINT)
    await store.put_session(session)
    assert await store.runs() == [RUN]
    assert await store.samplers() == [sampler]
    assert await store.checkpoints() == [CHECKPOINT]
    assert await store.sessions() == [session]


async def test_what_is_put_in_again_takes_the_place_of_what_was_there(store):
    await store.put_run(RUN)
    paused = replace(RUN, state="paused", reason="for a while")
    await store.put_run(paused)
    assert await store.runs() == [paused]


async def test_things_come_oldest_first(store):
    for number in (2, 0, 1):
        await store.put_run(replace(RUN, id=f"run-{number}", created_at=NOW + timedelta(seconds=number)))
    assert [run.id for run in await store.runs()] == ["run-0", "run-1", "run-2"]


async def test_a_time_of_another_zone_is_kept_as_the_same_moment(store):
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    await store.put_run(replace(RUN, created_at=elsewhere))
    (run,) = await store.runs()
    assert run.created_at == NOW
    assert run.created_at.tzinfo == UTC


async def test_what_is_removed_is_gone(store):
    await store.put_checkpoint(CHECKPOINT)
    await store.remove_checkpoint(CHECKPOINT.id)
    assert await store.checkpoints() == []


async def test_whoever_owns_something_is_a_tenant(store):
    await store.put_run(RUN)
    await store.put_run(replace(RUN, id="run-2", tenant="other"))
    assert [tenant.id for tenant in await store.tenants()] == ["acme", "other"]


async def test_the_audit_log_is_told_newest_first_and_by_tenant(store):
    rows = [AuditRow(NOW, "run_made", tenant, "k", f"run-{n}") for n, tenant in enumerate(("acme", "other", "acme"))]
    await store.add_audit(rows)
    assert await store.audit(limit=2) == ([rows[2], rows[1]], 3)
    assert await store.audit(tenant="acme", limit=1, offset=1) == ([rows[0]], 2)
    assert await store.audit(event="payment") == ([], 0)


@pytest.mark.parametrize("name", ["\x00", "\ud800"])
async def test_a_text_that_no_database_keeps_is_the_callers_fault(store, name):
    try:
        await store.put_run(replace(RUN, name=name))
    except DataError:
        assert await store.runs() == []
    else:
        assert [run.name for run in await store.runs()] == [name]  # SQLite keeps a NUL


async def test_many_write_at_once(store):
    await asyncio.gather(*(store.put_run(replace(RUN, id=f"run-{number}")) for number in range(40)))
    assert len(await store.runs()) == 40


async def test_services_that_start_at_once_make_one_catalogue(database_url, tmp_path):
    stores = await asyncio.gather(*(Store.opened(database_url, tmp_path) for _ in range(4)))
    await stores[0].put_run(RUN)
    assert [await store.runs() for store in stores] == [[RUN]] * 4
    for store in stores:
        await store.close()


async def test_a_restart_finds_everything(database_url, tmp_path):
    first = await Store.opened(database_url, tmp_path)
    await first.put_run(RUN)
    await first.close()
    second = await Store.opened(database_url, tmp_path)
    assert await second.runs() == [RUN]
    await second.close()


async def test_the_steps_lead_to_the_tables_that_the_code_knows(store):
    def differences(connection):
        return compare_metadata(MigrationContext.configure(connection), tables.catalogue)

    async with store.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_samplers_of_two_tenants_may_be_called_the_same(store):
    one = SamplerRow("mine", "acme", "tiny", "", "/a/folder", NOW)
    other = replace(one, tenant="other")
    for row in (one, other):
        await store.put_sampler(row)
    assert await store.samplers() == [one, other]
    await store.remove_sampler("acme", "mine")
    assert await store.samplers() == [other]


async def test_a_catalogue_of_a_newer_fettle_is_refused(database_url, tmp_path):
    store = await Store.opened(database_url, tmp_path)
    async with store.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await store.close()
    with pytest.raises(StorageError, match="was made by a newer Fettle"):
        await Store.opened(database_url, tmp_path)


async def test_a_step_that_fails_leaves_nothing_behind(database_url, tmp_path):
    store = await Store.opened(database_url, tmp_path)
    async with store.writing() as connection:
        for table in reversed(tables.catalogue.sorted_tables):
            if table.name != "usage":  # in the way of the first step, half-way through it
                await connection.execute(text(f"DROP TABLE {table.name}"))
        await connection.execute(text("DROP TABLE alembic_version"))
    await store.close()
    with pytest.raises(Exception, match="usage"):
        await Store.opened(database_url, tmp_path)
    left = Store(store._engine, "here")
    async with left.reading() as connection:
        assert await connection.run_sync(lambda sync: sync.dialect.get_table_names(sync)) == ["usage"]
    await left.close()


async def test_without_an_address_the_catalogue_is_in_the_state_folder(tmp_path):
    store = await Store.opened(None, tmp_path / "made" / "here")
    await store.close()
    assert (tmp_path / "made" / "here" / CATALOGUE).is_file()


@pytest.mark.parametrize(
    "written", ["postgresql://me@host/db", "postgres://me@host/db", "postgresql+asyncpg://me@host/db"]
)
def test_addresses_get_the_driver_that_is_here(written, tmp_path):
    assert str(database_url(written, tmp_path)) == "postgresql+psycopg://me@host/db"


@pytest.mark.parametrize("written", ["mysql://me@host/db", "nonsense", "oracle://x"])
def test_addresses_of_what_is_not_known_are_refused(written, tmp_path):
    with pytest.raises(ConfigError, match="postgresql://"):
        database_url(written, tmp_path)


async def test_a_database_that_is_not_there_is_one_sentence_without_its_password(tmp_path):
    with pytest.raises(StorageError, match="does not answer") as refused:
        await Store.opened("postgresql://me:hunter2@127.0.0.1:1/db", tmp_path)
    assert "hunter2" not in refused.value.message
    assert "\n" not in refused.value.message


async def test_a_database_that_goes_away_is_waited_for(tmp_path):
    with running_postgres() as server:
        store = await Store.opened(server.new_database(), tmp_path)
        await store.put_run(RUN)
        server.stop()
        with pytest.raises(StorageError, match="does not answer"):
            await store.put_run(replace(RUN, state="paused"))
        with pytest.raises(StorageError, match="does not answer"):
            await store.runs()
        server.start()
        await store.put_run(replace(RUN, state="completed"))
        assert [run.state for run in await store.runs()] == ["completed"]
        await store.close()


async def test_samplers_of_a_catalogue_from_before_are_kept(database_url, tmp_path):
    store = await Store.opened(database_url, tmp_path)
    sampler = SamplerRow("sampler-1", "acme", "tiny", "run-1/weights/one", "/a/folder", NOW)
    await store.put_sampler(sampler)
    async with store.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    await store.close()
    again = await Store.opened(database_url, tmp_path)
    assert await again.samplers() == [sampler]
    await again.close()
