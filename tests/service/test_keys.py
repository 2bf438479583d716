import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text, update

from fettle.errors import AuthenticationError, ConfigError, NotFoundError, StorageError
from fettle.service import tables
from fettle.service.audit import FILE, Audit
from fettle.service.keys import FRESH_S, TRUSTED_S, Keyring
from fettle.service.store import Store
from tests.service.databases import running_postgres


@pytest.fixture
async def keyring(store, audit, clock) -> AsyncIterator[Keyring]:
    ring = Keyring(store, audit, clock=clock)
    yield ring
    await ring.settled()


async def test_a_key_proves_whose_it_is(keyring):
    made, secret = await keyring.create("acme", name="ci", admin=True, requests_per_minute=60)
    key = await keyring.verified(secret)
    assert replace(key, last_used_at=None) == made
    assert (key.tenant, key.name, key.admin, key.requests_per_minute) == ("acme", "ci", True, 60)


async def test_a_key_begins_as_the_public_sdk_asks(keyring):
    key, secret = await keyring.create("acme")
    assert secret.startswith(f"tml-{key.id}-")
    assert len(secret) > 50


async def test_the_catalogue_holds_no_secret(keyring, store):
    _, secret = await keyring.create("acme")
    async with store.reading() as connection:
        rows = [
            str(row) for table in tables.catalogue.sorted_tables for row in await connection.execute(table.select())
        ]
    assert rows
    assert not any(secret.split("-", 2)[2][:8] in row for row in rows)


async def wrong_keys(keyring) -> list[str]:
    key, secret = await keyring.create("acme")
    other, other_secret = await keyring.create("other")
    return [
        "",
        "tml-",
        "sk-something",
        f"tml-{key.id}",
        f"tml-{key.id}-",
        secret[:-1],
        secret + "x",
        secret.upper(),
        f"tml-{other.id}-{secret.split('-', 2)[2]}",
        f"tml-{key.id}-{other_secret.split('-', 2)[2]}",
        "tml-unknown-" + "a" * 43,
        "tml-" + "x" * 10_000,
        "tml-ünïcode-ß",
        f"tml-{key.id}' OR '1'='1-x",
    ]


async def test_anything_else_proves_nothing(keyring):
    for wrong in await wrong_keys(keyring):
        with pytest.raises(AuthenticationError, match="no such key"):
            await keyring.verified(wrong)


async def test_a_key_that_has_expired_is_refused(keyring, store, clock):
    key, secret = await keyring.create("acme", days=1)
    await keyring.verified(secret)
    async with store.writing() as connection:
        past = datetime.now(UTC) - timedelta(seconds=1)
        await connection.execute(update(tables.keys).values(expires_at=past))
    clock.now += TRUSTED_S + 1
    with pytest.raises(AuthenticationError, match=f"the key {key.id} has expired"):
        await keyring.verified(secret)


async def test_a_revocation_here_acts_at_once(keyring):
    key, secret = await keyring.create("acme")
    await keyring.verified(secret)
    revoked = await keyring.revoke(key.id)
    assert revoked.revoked_at is not None
    with pytest.raises(AuthenticationError, match="was revoked"):
        await keyring.verified(secret)


async def test_a_revocation_from_elsewhere_acts_within_seconds(keyring, store, audit, clock):
    key, secret = await keyring.create("acme")
    await keyring.verified(secret)
    await Keyring(store, audit).revoke(key.id)
    clock.now += 5.1
    with pytest.raises(AuthenticationError, match="was revoked"):
        await keyring.verified(secret)


async def test_a_key_in_use_is_looked_up_beside_its_requests(keyring, store, audit, clock):
    key, secret = await keyring.create("acme")
    await keyring.verified(secret)
    await Keyring(store, audit).revoke(key.id)
    clock.now += FRESH_S + 0.1
    await keyring.verified(secret)  # answered from memory, while the catalogue is asked
    await keyring.settled()
    with pytest.raises(AuthenticationError, match="was revoked"):
        await keyring.verified(secret)


async def test_a_verified_key_asks_the_catalogue_nothing(keyring, store):
    _, secret = await keyring.create("acme")
    await keyring.verified(secret)
    await keyring.settled()
    task = keyring.verified(secret)
    with pytest.raises(StopIteration):  # it ends without waiting for anything
        task.send(None)


async def test_a_good_key_stays_good_while_the_catalogue_is_away(tmp_path, clock):
    with running_postgres() as server:
        store = await Store.opened(server.new_database(), tmp_path)
        keyring = Keyring(store, Audit(store, tmp_path), clock=clock)
        _, secret = await keyring.create("acme")
        _, unseen = await keyring.create("acme")
        await keyring.verified(secret)
        await keyring.settled()
        server.stop()
        for _ in range(3):
            clock.now += TRUSTED_S + 1
            assert (await keyring.verified(secret)).tenant == "acme"
        with pytest.raises(StorageError):
            await keyring.verified(unseen)
        server.start()
        assert (await keyring.verified(unseen)).tenant == "acme"
        await keyring.settled()
        await store.close()


async def test_the_first_use_is_noted_and_the_last_one_kept(keyring, audit, store):
    key, secret = await keyring.create("acme")
    for _ in range(3):
        await keyring.verified(secret, address="10.0.0.7")
    await keyring.settled()
    await audit.flush()
    rows, total = await store.audit(event="key_first_used")
    assert [(row.subject, row.address) for row in rows] == [(key.id, "10.0.0.7")]
    assert total == 1
    (kept,) = await keyring.keys("acme")
    assert kept.last_used_at is not None


async def test_unknown_keys_cannot_be_revoked(keyring):
    with pytest.raises(NotFoundError, match="no key of the id nosuch"):
        await keyring.revoke("nosuch")


@pytest.mark.parametrize("tenant", ["", "a b", "-a", "a/b", "../a", "a" * 65, "ä", "a\x00", "."])
async def test_what_cannot_be_a_tenant_gets_no_key(keyring, tenant):
    with pytest.raises(ConfigError, match="cannot be a tenant"):
        await keyring.create(tenant)


@pytest.mark.parametrize("limits", [{"days": 0}, {"days": float("nan")}, {"days": -1}, {"requests_per_minute": 0}])
async def test_limits_that_cannot_be_are_refused(keyring, limits):
    with pytest.raises(ConfigError):
        await keyring.create("acme", **limits)


async def test_a_hundred_requests_with_a_new_key_at_once_all_come_in(keyring):
    _, secret = await keyring.create("acme")
    keys = await asyncio.gather(*(keyring.verified(secret) for _ in range(100)))
    assert {key.tenant for key in keys} == {"acme"}
    await keyring.settled()


async def test_made_refused_and_revoked_are_in_the_log_and_no_secret(keyring, audit, store, tmp_path):
    key, secret = await keyring.create("acme")
    for _ in range(5):
        with pytest.raises(AuthenticationError):
            await keyring.verified(secret + "tail", address="10.0.0.8")
    await keyring.revoke(key.id)
    await audit.flush()
    rows, _ = await store.audit()
    assert {row.event: row.times for row in rows} == {"key_made": 1, "key_refused": 5, "key_revoked": 1}
    lines = (tmp_path / FILE).read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["key_made", "key_refused", "key_revoked"]
    assert secret.split("-", 2)[2] not in "".join(lines)


async def test_keys_are_kept_in_the_open_only_by_their_ids(keyring, store):
    key, _ = await keyring.create("acme")
    async with store.reading() as connection:
        digest = await connection.scalar(text("SELECT digest FROM keys"))
    assert len(digest) == 64
    assert await store.key(key.id) == (key, digest)
