"""The operator's side over HTTP: keys, the audit log, usage and balances. A tenant sees its own usage and balance."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from fettle.config import Frozen
from fettle.config.prices import Amount
from fettle.errors import ForbiddenError
from fettle.service.auth import Doors, administrator, authenticated
from fettle.service.callers import Caller
from fettle.service.entries import AuditEvent, AuditRow, Key, LedgerRow, UsageRow
from fettle.service.keys import check_tenant
from fettle.service.said import described, said
from fettle.service.store import Store
from fettle.service.usage import Usage
from fettle.service.wire import answer

Line = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Day = Annotated[str, Query(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=1_000_000_000)]
EVERYBODY = "*"
"""In the place of a tenant: all of them."""


class NewKey(Frozen):
    """A key to be made."""

    tenant: Line
    """Who will own what is made with it; a name that is new makes a new tenant."""
    name: Line = ""
    """What it is for, to tell it from others."""
    admin: bool = False
    """Whether it may make keys, read the audit log and take payments."""
    days: Annotated[float, Field(gt=0, lt=36_500)] | None = None
    """How long it is good for; null: until it is revoked."""
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Of all kinds together; null: only what holds for every key."""


class Payment(Frozen):
    """Something paid in."""

    amount: Annotated[Amount, Field(gt=0)]
    """In the unit that prices are in."""
    key: Annotated[Line, Field(min_length=1)]
    """The payer's own name for this payment: sent twice, it counts once."""
    note: Line = ""
    """For whoever reads the ledger."""


class Administered(Protocol):
    """What these routes stand on."""

    @property
    def doors(self) -> Doors:
        """Where requests come in."""
        ...

    @property
    def store(self) -> Store:
        """The catalogue."""
        ...

    @property
    def usage(self) -> Usage:
        """What is computed for whom."""
        ...


def routes(service: Administered) -> APIRouter:
    """Everything here."""
    router = APIRouter(prefix="/v1", tags=["administration"])
    _add_keys(router, service)
    _add_audit(router, service)
    _add_usage(router, service)
    _add_money(router, service)
    return router


def _add_keys(router: APIRouter, service: Administered) -> None:
    keys = service.doors.keys
    Admin = Annotated[Caller, Depends(administrator(service))]

    @router.get("/keys")
    async def list_keys(request: Request, _: Admin, tenant: str | None = None) -> Response:
        """Every key, or a tenant's, newest first. The secrets are kept nowhere."""
        return answer(request, {"keys": [_key_tree(key) for key in await keys.keys(tenant)]})

    @router.post("/keys", status_code=201, openapi_extra=described(NewKey))
    async def make_key(request: Request, admin: Admin) -> Response:
        """A new key; ``secret`` is shown here and never again."""
        wanted = await said(request, NewKey)
        key, secret = await keys.create(**wanted.model_dump(), by=admin)
        return answer(request, {"key": _key_tree(key), "secret": secret}, 201)

    @router.delete("/keys/{key_id}")
    async def revoke_key(request: Request, admin: Admin, key_id: str) -> Response:
        """A key that is good no longer, from this moment."""
        return answer(request, {"key": _key_tree(await keys.revoke(key_id, by=admin))})


def _add_audit(router: APIRouter, service: Administered) -> None:
    Admin = Annotated[Caller, Depends(administrator(service))]

    @router.get("/audit")
    async def read_audit(
        request: Request,
        _: Admin,
        tenant: str | None = None,
        event: AuditEvent | None = None,
        limit: Limit = 100,
        offset: Offset = 0,
    ) -> Response:
        """Who was let in, who was not, and what was made and given away; newest first."""
        await service.doors.audit.flush()
        rows, total = await service.store.audit(tenant=tenant, event=event, limit=limit, offset=offset)
        return answer(request, {"rows": [_audit_tree(row) for row in rows], "total": total})


def _add_usage(router: APIRouter, service: Administered) -> None:
    Known = Annotated[Caller, Depends(authenticated(service))]

    @router.get("/usage")
    async def read_usage(
        request: Request,
        caller: Known,
        since: Day = "0000-01-01",
        until: Day = "9999-12-31",
        run: str | None = None,
        tenant: str | None = None,
    ) -> Response:
        """Measured computing and tokens by run, kind of work and day; admins may name a tenant, or * for all."""
        await service.usage.flush()
        whose = _whose(caller, tenant)
        rows = await service.usage.accounts.usage(tenant=whose, run=run, since=since, until=until)
        seconds = sum(row.microseconds for row in rows) / 1e6
        tree = {"rows": [_usage_tree(row) for row in rows], "seconds": seconds, "tokens": sum(r.tokens for r in rows)}
        return answer(request, tree)


def _add_money(router: APIRouter, service: Administered) -> None:
    Admin = Annotated[Caller, Depends(administrator(service))]
    Known = Annotated[Caller, Depends(authenticated(service))]

    @router.get("/balance")
    async def read_balance(request: Request, caller: Known, limit: Limit = 100, offset: Offset = 0) -> Response:
        """What is left to the caller's tenant, and how it came to that, newest first."""
        service.usage.meet(caller.tenant)
        await service.usage.flush()
        left, rows, total = await service.usage.statement(caller.tenant, limit=limit, offset=offset)
        tree = {
            "tenant": caller.tenant,
            "balance": _money(left),
            "prices": None if service.usage.prices is None else service.usage.prices.model_dump(mode="json"),
            "rows": [_ledger_tree(row) for row in rows],
            "total": total,
        }
        return answer(request, tree)

    @router.get("/tenants")
    async def list_tenants(request: Request, _: Admin) -> Response:
        """Every tenant and what is left to it."""
        await service.usage.flush()
        tenants = [
            {"id": tenant.id, "created_at": _moment(tenant.created_at), "balance": _money(tenant.balance)}
            for tenant in await service.store.tenants()
        ]
        return answer(request, {"tenants": tenants})

    @router.post("/tenants/{tenant}/payments", openapi_extra=described(Payment))
    async def pay(request: Request, admin: Admin, tenant: str) -> Response:
        """Pay in for a tenant; runs that were paused for want of a balance go on."""
        paid = await said(request, Payment)
        check_tenant(tenant)
        left = await service.usage.pay(tenant, paid.amount, key=paid.key, note=paid.note)
        service.doors.audit.note("payment", admin, subject=tenant)
        return answer(request, {"tenant": tenant, "balance": _money(left)})


def _whose(caller: Caller, tenant: str | None) -> str | None:
    """The tenant whose rows are told; None for all.

    Raises:
        ForbiddenError: the caller is no admin, and asks for another's.
    """
    if tenant is None or tenant == caller.tenant:
        return caller.tenant
    if not caller.admin:
        raise ForbiddenError("only an admin's key may name another tenant: leave it out for your own usage")
    return None if tenant == EVERYBODY else tenant


def _key_tree(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "admin": key.admin,
        "created_at": _moment(key.created_at),
        "expires_at": _moment(key.expires_at),
        "revoked_at": _moment(key.revoked_at),
        "last_used_at": _moment(key.last_used_at),
        "requests_per_minute": key.requests_per_minute,
    }


def _audit_tree(row: AuditRow) -> dict[str, Any]:
    return {
        "at": _moment(row.at),
        "event": row.event,
        "tenant": row.tenant,
        "key": row.key,
        "subject": row.subject,
        "address": row.address,
        "times": row.times,
    }


def _usage_tree(row: UsageRow) -> dict[str, Any]:
    return {
        "tenant": row.tenant,
        "run": row.run,
        "kind": row.kind,
        "day": row.day,
        "operations": row.operations,
        "seconds": row.microseconds / 1e6,
        "tokens": row.tokens,
    }


def _ledger_tree(row: LedgerRow) -> dict[str, Any]:
    return {"at": _moment(row.at), "kind": row.kind, "amount": _money(row.amount), "note": row.note}


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _money(amount: Decimal) -> str:
    """Exact: a float would not be."""
    return f"{amount:f}"
