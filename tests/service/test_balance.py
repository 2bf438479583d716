"""What a real service computes is counted, charged, and ends at zero until somebody pays."""

from decimal import Decimal

from fettle.config import Prices
from tests.service.databases import until
from tests.service.matrix import NATIVE_BATCH, TOKENS
from tests.service.served import Client, serving


def counted(client: Client, kind: str) -> dict[str, float]:
    rows = [row for row in client.said("GET", "/v1/usage")["rows"] if row["kind"] == kind]
    return {name: sum(row[name] for row in rows) for name in ("operations", "tokens", "seconds")}


def test_what_is_computed_is_told_by_run_and_kind(client, shared):
    run = client.new_run(lora={"rank": 2})
    for _ in range(3):
        client.said("POST", f"/v1/runs/{run}/forward_backward?wait=60", NATIVE_BATCH)
    client.said("POST", f"/v1/runs/{run}/optim_step?wait=60", {"learning_rate": 1e-3})
    rows = {row["kind"]: row for row in client.said("GET", f"/v1/usage?run={run}")["rows"]}
    assert rows.keys() == {"create", "forward_backward", "optim_step"}
    assert rows["forward_backward"]["operations"] == 3
    assert rows["forward_backward"]["tokens"] == 3 * len(TOKENS)
    assert all(row["seconds"] > 0 for row in rows.values())
    with shared.client(shared.other_key) as other:
        assert other.said("GET", f"/v1/usage?run={run}")["rows"] == []


def test_draws_are_counted_for_who_asked_and_for_the_run_drawn_from(client):
    run = client.new_run(lora={"rank": 2})
    sampler = client.said("POST", "/v1/samplers", {"run_id": run})["id"]
    asked = {"requests": [{"prompt": TOKENS, "n": 2, "params": {"max_tokens": 4, "end_tokens": False}}]}
    client.said("POST", f"/v1/samplers/{sampler}/sample?wait=60", asked)
    (row,) = [row for row in client.said("GET", f"/v1/usage?run={run}")["rows"] if row["kind"] == "draw"]
    assert row["operations"] == 1
    assert row["tokens"] >= 2 * 4
    assert row["seconds"] > 0


def test_at_zero_runs_are_paused_and_after_a_payment_they_go_on(tmp_path, tiny_model):
    prices = Prices(device_second=Decimal(1), opening_balance=Decimal("0.02"))
    with serving(tmp_path / "state", tiny_model, prices=prices) as served, served.client() as client:
        run, rested = (client.new_run(lora={"rank": 2}) for _ in range(2))
        client.said("POST", f"/v1/runs/{rested}/pause")

        def refused() -> bool:
            return client.post(f"/v1/runs/{run}/forward_backward?wait=60", json=NATIVE_BATCH).status_code == 402

        until(refused)
        until(lambda: client.said("GET", f"/v1/runs/{run}")["state"] == "paused")
        assert client.post("/v1/runs", json={"base_model": "tiny"}).status_code == 402
        with served.client(served.admin_key) as admin:
            admin.said("POST", "/v1/tenants/one/payments", {"amount": 100, "key": "a"})
        until(lambda: client.said("GET", f"/v1/runs/{run}")["state"] == "active")
        client.said("POST", f"/v1/runs/{run}/forward_backward?wait=60", NATIVE_BATCH)
        assert client.said("GET", f"/v1/runs/{rested}")["state"] == "paused"  # its owner put it there
        money = client.said("GET", "/v1/balance?limit=1000")
        assert sum(Decimal(row["amount"]) for row in money["rows"]) == Decimal(money["balance"])
        seconds = client.said("GET", "/v1/usage")["seconds"]
        charged = -sum(Decimal(row["amount"]) for row in money["rows"] if row["kind"] == "charge")
        assert abs(charged - Decimal(seconds)) < Decimal("0.01")


def test_what_was_computed_before_a_kill_is_counted_once_after_it(spawned):
    server = spawned()
    with server.client() as client:
        run = client.new_run(lora={"rank": 2})
        for _ in range(10):
            last = client.said("POST", f"/v1/runs/{run}/forward_backward", NATIVE_BATCH)["id"]
        client.result(last)
        server.kill()
    server.start()
    with server.client() as client:
        counts = counted(client, "forward_backward")
    assert counts["operations"] == 10
    assert counts["tokens"] == 10 * len(TOKENS)
    assert counts["seconds"] > 0
