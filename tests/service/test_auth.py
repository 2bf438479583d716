import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from fettle.config import Prices
from fettle.errors import FettleError
from fettle.service.audit import Audit
from fettle.service.auth import Doors
from fettle.service.faces import admin
from fettle.service.keys import Keyring
from fettle.service.limits import Limits
from fettle.service.rates import Rates
from fettle.service.store import Store
from fettle.service.usage import Usage
from fettle.service.wire import error_response

PRICES = Prices(device_second=Decimal("0.01"), opening_balance=Decimal(5))
NONE = {"none": {}, "empty": {"X-API-Key": ""}, "another scheme": {"Authorization": "Basic dXNlcjpwYXNz"}}


@pytest.fixture
def database_url(tmp_path) -> str:
    """One kind is enough here."""
    return f"sqlite:///{tmp_path / 'catalogue.sqlite3'}"


@dataclass
class Office:
    """What the administration stands on, and where it listens."""

    store: Store
    doors: Doors
    usage: Usage
    url: str = ""
    admin: str = ""
    key: str = ""

    def client(self, key: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"X-API-Key": key})


@contextlib.asynccontextmanager
async def listening(office: Office) -> AsyncIterator[Office]:
    app = FastAPI()
    app.add_middleware(Limits, max_body_mib=1, timeout_s=10)
    app.include_router(admin.routes(office))
    app.add_exception_handler(FettleError, lambda _, error: error_response(error))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        office.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield office
        server.should_exit = True
        await serving


@pytest.fixture
async def office(store, tmp_path, request) -> AsyncIterator[Office]:
    audit = Audit(store, tmp_path)
    keys = Keyring(store, audit)
    usage = Usage(store, PRICES)
    await usage.load()
    office = Office(store, Doors(keys, audit, Rates(audit), getattr(request, "param", "keys")), usage)
    _, office.admin = await keys.create("operations", admin=True)
    _, office.key = await keys.create("acme")
    async with listening(office):
        yield office
    await keys.settled()


@pytest.mark.parametrize("headers", NONE.values(), ids=NONE)
async def test_who_brings_no_key_stays_out_and_is_told_how(office, headers):
    async with httpx.AsyncClient(base_url=office.url, headers=headers) as nobody:
        refused = await nobody.get("/usage")
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert refused.json()["error"]["code"] == "authentication"
    assert "Authorization: Bearer" in refused.json()["detail"]


async def test_a_key_is_taken_in_either_header(office):
    for headers in (
        {"X-API-Key": office.key},
        {"Authorization": f"Bearer {office.key}"},
        {"authorization": f"bearer {office.key}"},
        {"Authorization": "Basic x", "X-API-Key": office.key},
    ):
        async with httpx.AsyncClient(base_url=office.url, headers=headers) as client:
            assert (await client.get("/balance")).json()["tenant"] == "acme"


async def test_a_wrong_key_is_not_repeated(office):
    wrong = office.key[:-4] + "aaaa"
    async with office.client(wrong) as client:
        refused = await client.get("/usage")
    assert refused.status_code == 401
    assert wrong[20:] not in refused.text


async def test_only_admins_may_administrate(office):
    async with office.client(office.key) as client:
        refused = [
            await client.get("/keys"),
            await client.post("/keys", json={"tenant": "acme", "admin": True}),
            await client.delete("/keys/whatever"),
            await client.get("/audit"),
            await client.get("/tenants"),
            await client.post("/tenants/acme/payments", json={"amount": 1, "key": "mine"}),
            await client.get("/usage", params={"tenant": "operations"}),
            await client.get("/usage", params={"tenant": "*"}),
        ]
    assert {answer.status_code for answer in refused} == {403}
    assert {answer.json()["error"]["code"] for answer in refused} == {"forbidden"}


async def test_a_key_made_over_http_works_at_once_until_it_is_revoked(office):
    async with office.client(office.admin) as client:
        made = await client.post("/keys", json={"tenant": "new", "name": "a name", "days": 2.5})
        assert made.status_code == 201
        async with office.client(made.json()["secret"]) as theirs:
            assert (await theirs.get("/balance")).json()["tenant"] == "new"
            listed = (await client.get("/keys", params={"tenant": "new"})).json()["keys"]
            assert [key["name"] for key in listed] == ["a name"]
            revoked = await client.delete(f"/keys/{listed[0]['id']}")
            assert revoked.json()["key"]["revoked_at"] is not None
            assert (await theirs.get("/balance")).status_code == 401
        assert (await client.delete("/keys/nosuch")).status_code == 404


async def test_a_secret_is_shown_once(office):
    async with office.client(office.admin) as client:
        secret = (await client.post("/keys", json={"tenant": "new"})).json()["secret"]
        for path in ("/keys", "/audit", "/tenants", "/usage"):
            assert secret.split("-", 2)[2] not in (await client.get(path)).text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tenant": ""},
        {"tenant": "a b"},
        {"tenant": "acme", "days": 0},
        {"tenant": "acme", "days": 1e9},
        {"tenant": "acme", "name": "a\x00b"},
        {"tenant": "acme", "name": "x" * 1000},
        {"tenant": "acme", "admin": "yes"},
        {"tenant": "acme", "nosuch": 1},
        {"tenant": "acme", "requests_per_minute": 10**30},
    ],
)
async def test_a_key_that_cannot_be_is_refused(office, body):
    async with office.client(office.admin) as client:
        assert (await client.post("/keys", json=body)).status_code in (400, 422)


async def test_a_key_with_a_limit_is_told_when_to_come_again(office):
    _, limited = await office.doors.keys.create("acme", requests_per_minute=3)
    async with office.client(limited) as client:
        answers = [await client.get("/balance") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 20
    assert answers[-1].json()["error"]["code"] == "busy"


async def test_the_log_tells_admins_what_happened(office):
    async with office.client(office.key) as client:
        await client.get("/audit")
    async with office.client("tml-wrong-key") as client:
        await client.get("/usage")
    async with office.client(office.admin) as client:
        await client.post("/tenants/acme/payments", json={"amount": 1, "key": "a"})
        rows = (await client.get("/audit")).json()["rows"]
        only = (await client.get("/audit", params={"event": "payment"})).json()
    assert {"key_made", "forbidden", "key_refused", "payment"} <= {row["event"] for row in rows}
    assert [(row["tenant"], row["subject"]) for row in only["rows"]] == [("operations", "acme")]
    assert {row["address"] for row in rows if row["event"] == "key_refused"} == {"127.0.0.1"}


async def test_a_payment_counts_once_and_is_in_the_ledger(office):
    paid = {"amount": 20.5, "key": "invoice 17", "note": "January"}
    async with office.client(office.admin) as client:
        for _ in range(3):
            answer = await client.post("/tenants/acme/payments", json=paid)
            assert answer.status_code == 200
    office.usage.check("acme")
    async with office.client(office.key) as client:
        balance = (await client.get("/balance")).json()
    assert Decimal(balance["balance"]) == Decimal("25.5")
    assert sorted((row["kind"], Decimal(row["amount"])) for row in balance["rows"]) == [
        ("opening", Decimal(5)),
        ("payment", Decimal("20.5")),
    ]
    assert balance["prices"]["device_second"] == 0.01


@pytest.mark.parametrize("amount", [0, -1, 1e30, "ten", None, 1e-12])
async def test_an_amount_that_cannot_be_paid_is_refused(office, amount):
    async with office.client(office.admin) as client:
        answer = await client.post("/tenants/acme/payments", json={"amount": amount, "key": "a"})
        tenants = (await client.get("/tenants")).json()["tenants"]
    assert (answer.status_code, "amount" in answer.json()["error"]["message"]) == (400, True)
    assert {Decimal(tenant["balance"]) for tenant in tenants} <= {Decimal(0), Decimal(5)}


async def test_a_slip_in_what_an_admin_sends_is_named_with_what_was_meant(office):
    async with office.client(office.admin) as client:
        key = await client.post("/keys", json={"tenant": "acme", "dayz": 3})
        paid = await client.post("/tenants/acme/payments", json={"amout": 5, "key": "a"})
    for answer, words in (key, ("'dayz'", "did you mean 'days'")), (paid, ("'amout'", "did you mean 'amount'")):
        assert answer.status_code == 400
        assert all(word in answer.json()["error"]["message"] for word in words), answer.text


@pytest.mark.parametrize("office", ["none"], indirect=True)
async def test_without_keys_anybody_is_the_local_tenant_and_an_admin(office):
    async with httpx.AsyncClient(base_url=office.url) as client:
        assert (await client.get("/balance")).json()["tenant"] == "local"
        assert (await client.get("/audit")).status_code == 200
