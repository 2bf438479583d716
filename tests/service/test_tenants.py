"""Tenants share a service and nothing else: what one does is not seen, taken or paid for by another."""

import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from threading import Thread

import pytest

from fettle.config import Prices
from tests.service.served import Client, Served, serving


@pytest.fixture(scope="module")
def alice(shared: Served) -> Iterator[Client]:
    with shared.client() as found:
        yield found


@pytest.fixture(scope="module")
def bob(shared: Served) -> Iterator[Client]:
    with shared.client(shared.other_key) as found:
        yield found


def drawn(client: Client, sampler: str, **more: object) -> list[list[int]]:
    asked = {"requests": [{"prompt": "one two", "params": {"max_tokens": 4, "temperature": 0}}], **more}
    told = client.said("POST", f"/v1/samplers/{sampler}/sample?wait=30", asked)
    return list(told["result"]["token_ids"])


def test_who_draws_from_a_published_checkpoint_is_not_told_of_in_its_run(shared, alice, bob):
    run = alice.new_run(lora={"rank": 2})
    checkpoint = f"{run}/sampler_weights/open"
    alice.said("POST", f"/v1/runs/{run}/save_state?wait=30", {"name": "open", "optimizer": False})
    alice.said("POST", f"/v1/checkpoints/{checkpoint}/publish")
    for client in (bob, alice):
        drawn(client, client.said("POST", "/v1/samplers", {"checkpoint": checkpoint})["id"])
    assert len(shared.service.told.draws(run)) == 1


def test_a_run_id_of_another_tenant_is_taken_and_not_denied(alice, bob):
    run = alice.new_run(lora={"rank": 2})
    told = bob.said("POST", "/v1/runs", {"base_model": "tiny", "id": run}, status=409)
    assert "is taken: choose another" in told["error"]["message"]


def test_the_runs_of_one_tenant_leave_room_for_those_of_another(tmp_path, tiny_model):
    with serving(tmp_path / "state", tiny_model, max_policies=1) as served, served.client() as alice:
        alice.new_run(lora={"rank": 2})
        alice.said("POST", "/v1/runs", {"base_model": "tiny"}, status=429)
        with served.client(served.other_key) as bob:
            bob.new_run(lora={"rank": 2})


def test_a_samplers_id_is_its_tenants_own(tmp_path, tiny_model):
    for _ in range(2):  # the second time after a restart
        with serving(tmp_path / "state", tiny_model) as served, served.client() as alice:
            bob = served.client(served.other_key)
            made = [client.said("POST", "/v1/samplers", {"model": "tiny", "id": "mine"}) for client in (alice, bob)]
            assert [each["id"] for each in made] == ["mine", "mine"]
            assert drawn(bob, "mine") == drawn(alice, "mine")
            bob.close()
    with serving(tmp_path / "state", tiny_model) as served, served.client() as alice:
        alice.said("DELETE", "/v1/samplers/mine")
        alice.said("GET", "/v1/samplers/mine", status=404)
        with served.client(served.other_key) as bob:
            bob.said("GET", "/v1/samplers/mine")


def test_nobody_stands_in_the_way_of_a_pin_that_is_to_come(alice, bob):
    run = alice.new_run(lora={"rank": 2})
    pin = f"{run}.0.0"
    for client in (bob, alice):
        told = client.said("POST", "/v1/samplers", {"model": "tiny", "id": pin}, status=400)
        assert "choose another" in told["error"]["message"]
    bob.said("POST", "/v1/samplers", {"model": "tiny", "id": "openai-" + "0" * 32}, status=400)
    assert alice.said("POST", f"/v1/runs/{run}/sampler?wait=30")["id"] == pin
    assert drawn(alice, pin)
    bob.said("GET", f"/v1/samplers/{pin}", status=404)


def test_who_opens_many_samplers_lets_his_own_go(tmp_path, tiny_model):
    with serving(tmp_path / "state", tiny_model, max_samplers=3) as served, served.client() as alice:
        hers = alice.said("POST", "/v1/samplers", {"model": "tiny"})["id"]
        with served.client(served.other_key) as bob:
            his = [bob.said("POST", "/v1/samplers", {"model": "tiny"})["id"] for _ in range(4)]
            alice.said("GET", f"/v1/samplers/{hers}")
            assert [bob.get(f"/v1/samplers/{id}").status_code for id in his] == [404, 404, 200, 200]


def readings(client: Client, sampler: str) -> dict[str, int]:
    """Requests that are computed and draw nothing, and what each is answered."""
    rows = {"sequences": [[5, 9, 41]]}
    sample = {"model": "tiny", "prompt": "one two", "max_tokens": 0, "echo": True, "logprobs": 1}
    requests: dict[str, object] = {
        f"/v1/samplers/{sampler}/logprobs": rows,
        f"/v1/samplers/{sampler}/embed": rows,
        f"/v1/samplers/{sampler}/read": {"requests": [{"tokens": [5, 9, 41]}]},
        "/v1/embeddings": {"texts": ["one two"]},
        "/v1/completions": sample,
    }
    return {path: client.post(path, json=body).status_code for path, body in requests.items()}


def test_what_is_read_is_counted_for_whoever_asked(tmp_path, tiny_model):
    with serving(tmp_path / "state", tiny_model) as served, served.client() as alice:
        sampler = alice.said("POST", "/v1/samplers", {"model": "tiny"})["id"]
        assert set(readings(alice, sampler).values()) == {200}
        served.call(served.service.usage.flush())
        [row] = alice.said("GET", "/v1/usage")["rows"]
        assert (row["kind"], row["operations"]) == ("read", 5)
        assert row["seconds"] > 0
        with served.client(served.other_key) as bob:
            assert bob.said("GET", "/v1/usage")["rows"] == []


def test_who_has_no_balance_has_nothing_read(tmp_path, tiny_model):
    prices = Prices(opening_balance=Decimal(0))
    with serving(tmp_path / "state", tiny_model, prices=prices) as served, served.client() as alice:
        sampler = alice.said("POST", "/v1/samplers", {"model": "tiny"})["id"]
        assert set(readings(alice, sampler).values()) == {402}


def test_a_run_whose_file_is_slow_holds_up_no_other(shared, alice, bob):
    hers, his = (client.new_run(lora={"rank": 2}) for client in (alice, bob))
    slow = Path(shared.service.settings.state) / "runs" / hers / "metrics.jsonl"
    slow.parent.mkdir(parents=True)
    os.mkfifo(slow)
    asking = Thread(target=lambda: alice.get(f"/v1/runs/{hers}/metrics"))
    asking.start()
    try:
        bob.said("POST", f"/v1/runs/{his}/metrics", {"rows": [{"step": 1, "reward/mean": 0.5}]})
        assert bob.said("GET", f"/v1/runs/{his}/metrics")["rows"] == [{"step": 1, "reward/mean": 0.5}]
    finally:
        os.close(os.open(slow, os.O_RDWR))  # as writer and reader at once, which waits for nobody
        asking.join()
