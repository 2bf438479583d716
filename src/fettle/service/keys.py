"""Keys: made, shown once, verified without waiting for the catalogue, revoked.

A key reads ``tml-<id>-<secret>``. The id is public; of the secret, which is 256 random bits, only a hash is kept, and
a plain one is enough: there is nothing to guess that a slow hash would slow down.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fettle.errors import AuthenticationError, ConfigError, StorageError
from fettle.service.audit import Audit
from fettle.service.callers import Caller
from fettle.service.entries import Key
from fettle.service.store import Store

logger = logging.getLogger(__name__)

PREFIX = "tml-"
"""What the public ``tinker`` SDK asks every key to begin with."""
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
ID_LENGTH = 10
SECRET_BYTES = 32
LONGEST = 200
"""Characters of anything that is looked at as a key."""

FRESH_S = 2.0
"""A verified key is looked up again after so long, beside the request that uses it ..."""
TRUSTED_S = 5.0
"""... and after so long before it, so that a revocation from elsewhere acts within this time."""
USED_S = 60.0
"""How exactly it is kept when a key was last used."""
MOST_VERIFIED = 4096

TENANT_NAMES = "1 to 64 letters, digits, dots, dashes and underscores, the first a letter or a digit"


@dataclass(slots=True)
class _Verified:
    """A key as the catalogue last told it."""

    key: Key
    digest: str
    told: float
    used: float = float("-inf")


class Keyring:
    """The keys of a catalogue."""

    def __init__(self, store: Store, audit: Audit, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._audit = audit
        self._clock = clock
        self._verified: dict[str, _Verified] = {}
        self._beside: dict[str, asyncio.Task[None]] = {}

    async def create(
        self,
        tenant: str,
        *,
        name: str = "",
        admin: bool = False,
        days: float | None = None,
        requests_per_minute: int | None = None,
        by: Caller | None = None,
    ) -> tuple[Key, str]:
        """A new key, and the text that proves it, which cannot be had again.

        Raises:
            ConfigError: the tenant's name or a limit cannot be.
        """
        check_tenant(tenant)
        if days is not None and not 0 < days < 36_500:
            raise ConfigError(f"days is {days}: a key is good for more than 0 and less than 36500 days")
        if requests_per_minute is not None and requests_per_minute < 1:
            raise ConfigError(f"requests_per_minute is {requests_per_minute}: give 1 or more")
        now = datetime.now(UTC)
        key = Key(
            id="".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH)),
            tenant=tenant,
            name=name,
            admin=admin,
            created_at=now,
            expires_at=None if days is None else now + timedelta(days=days),
            requests_per_minute=requests_per_minute,
        )
        secret = secrets.token_urlsafe(SECRET_BYTES)
        await self._store.add_key(key, _digest(secret))
        self._audit.note("key_made", by or Caller(tenant, "", admin=False), subject=key.id)
        return key, f"{PREFIX}{key.id}-{secret}"

    async def keys(self, tenant: str | None = None) -> list[Key]:
        """A tenant's keys, or everybody's, newest first."""
        return await self._store.keys(tenant)

    async def revoke(self, id: str, *, by: Caller | None = None) -> Key:
        """Make a key good for nothing, at once here and within seconds in every other process.

        Raises:
            NotFoundError: there is none of that id.
        """
        key = await self._store.revoke_key(id, datetime.now(UTC))
        if id in self._verified:
            self._verified[id].key = key
        self._audit.note("key_revoked", by or Caller(key.tenant, "", admin=False), subject=id)
        return key

    async def verified(self, presented: str, *, address: str = "") -> Key:
        """The key that a text proves.

        Raises:
            AuthenticationError: it proves none, or one that is expired or revoked.
            StorageError: it is not among those verified lately, and the catalogue is away.
        """
        id, secret = _parts(presented)
        held = await self._held(id) if id else None
        if held is None or not hmac.compare_digest(held.digest, _digest(secret)):
            self._audit.note("key_refused", address=address)
            raise AuthenticationError(
                "no such key: send one that was made here, as 'Authorization: Bearer tml-...' or 'X-API-Key: tml-...'"
            )
        key = held.key
        over = _over(key, datetime.now(UTC))
        if over:
            self._audit.note("key_refused", Caller(key.tenant, key.id, key.admin, address), subject=key.id)
            raise AuthenticationError(f"the key {key.id} {over}: ask for another")
        self._note_use(held, address)
        return key

    async def check(self, id: str) -> None:
        """Refuse a key that was good before and is not any more.

        Raises:
            AuthenticationError: it was revoked, or has expired.
            StorageError: the catalogue is away, and has been for long.
        """
        held = await self._held(id)
        over = "is gone" if held is None else _over(held.key, datetime.now(UTC))
        if over:
            raise AuthenticationError(f"the key {id} {over}: ask for another")

    async def settled(self) -> None:
        """What goes on beside requests is done."""
        await asyncio.gather(*self._beside.values())

    async def _held(self, id: str) -> _Verified | None:
        held = self._verified.get(id)
        if held is None:
            return await self._first_seen(id)
        age = self._clock() - held.told
        if age > FRESH_S and id not in self._beside:
            self._beside[id] = asyncio.create_task(self._told_again(held))
        if age > TRUSTED_S:
            await asyncio.shield(self._beside[id])
        return self._verified.get(id)

    async def _first_seen(self, id: str) -> _Verified | None:
        found = await self._store.key(id)
        if found is None:
            return None
        if len(self._verified) >= MOST_VERIFIED:
            self._verified.pop(next(iter(self._verified)))
        return self._verified.setdefault(id, _Verified(*found, told=self._clock()))

    async def _told_again(self, held: _Verified) -> None:
        """While the catalogue is away, a key that was good stays good: training goes on."""
        id = held.key.id
        try:
            found = await self._store.key(id)
            if found is None:
                self._verified.pop(id, None)
            else:
                held.key, held.digest = found
        except StorageError as error:
            logger.warning("the key %s could not be looked up again: %s", id, error.message)
        finally:
            held.told = self._clock()
            self._beside.pop(id, None)

    def _note_use(self, held: _Verified, address: str) -> None:
        now = self._clock()
        if now - held.used < USED_S:
            return
        held.used = now
        errand = f"{held.key.id} used"
        if errand not in self._beside:
            self._beside[errand] = asyncio.create_task(self._write_use(errand, held.key, address))

    async def _write_use(self, errand: str, key: Key, address: str) -> None:
        try:
            if await self._store.key_used(key.id, datetime.now(UTC)):
                self._audit.note("key_first_used", Caller(key.tenant, key.id, key.admin, address), subject=key.id)
        except StorageError as error:
            logger.warning("when the key %s was used could not be written: %s", key.id, error.message)
        finally:
            self._beside.pop(errand, None)


def check_tenant(tenant: str) -> None:
    """Refuses what cannot be a tenant's name.

    Raises:
        ConfigError: it cannot.
    """
    plain = tenant.replace(".", "").replace("-", "").replace("_", "")
    if not (0 < len(tenant) <= 64 and tenant.isascii() and tenant[0].isalnum() and (plain or tenant).isalnum()):
        raise ConfigError(f"{tenant[:80]!r} cannot be a tenant: {TENANT_NAMES}")


def _parts(presented: str) -> tuple[str, str]:
    """The id and the secret; two empty texts where it is no key."""
    if not presented.startswith(PREFIX) or len(presented) > LONGEST or not presented.isascii():
        return "", ""
    id, _, secret = presented.removeprefix(PREFIX).partition("-")
    return (id, secret) if secret else ("", "")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _over(key: Key, now: datetime) -> str:
    """Why a key is good no longer."""
    if key.revoked_at is not None:
        return "was revoked"
    return "has expired" if key.expires_at is not None and key.expires_at <= now else ""
