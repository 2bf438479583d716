"""The authorisation matrix: every request x (no key, wrong key, another tenant's, an admin's, its owner's)."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from fettle.service.app import app_of
from tests.service.matrix import (
    ACTORS,
    CONSOLE,
    EXPECTED,
    LET_IN,
    NATIVE_BATCH,
    ROWS,
    TINKER_BATCH,
    Row,
    filled,
    page,
    plain,
)
from tests.service.served import Client, Served

PAGE = Path(__file__).parent.parent.parent / "docs" / "authorization.md"


@pytest.fixture(scope="module")
def things(shared: Served) -> dict[str, Any]:
    """What the first tenant owns."""
    with shared.client() as owner:
        run = owner.new_run(lora={"rank": 2})
        numbered = owner.said("POST", "/v1/runs?wait=60", {"base_model": "tiny", "lora": {"rank": 2}})
        scorer = owner.new_run(lora={"rank": 2}, head="reward")
        for name in ("one", "two", "four"):
            owner.said("POST", f"/v1/runs/{run}/save_state?wait=60", {"name": name})
        futures = [owner.said("POST", f"/v1/runs/{run}/forward", NATIVE_BATCH)["id"] for _ in range(2)]
        owner.said("POST", f"/v1/runs/{scorer}/save_state?wait=60", {"name": "one", "optimizer": False})
        return {
            "run": run,
            "spare": owner.new_run(lora={"rank": 2}),
            "numbered": numbered["id"],
            "incarnation": numbered["incarnation"],
            "seq": numbered["next_seq"],
            "future": futures[0],
            "other_future": futures[1],
            "sampler": owner.said("POST", "/v1/samplers", {"model": "tiny"})["id"],
            "scorer": owner.said("POST", "/v1/samplers", {"checkpoint": f"{scorer}/sampler_weights/one"})["id"],
            "key": shared.call(shared.service.keys.create("three"))[0].id,
            "other_key": shared.call(shared.service.keys.create("three"))[0].id,
            "owner_key": shared.key,
            **tinker_things(owner),
        }


def tinker_things(owner: Client) -> dict[str, str]:
    """What it owns by the Tinker protocol."""
    session = owner.said("POST", "/api/v1/create_session", {"tags": [], "sdk_version": "0.38.0"})["session_id"]
    model = {"session_id": session, "model_seq_id": 0, "base_model": "tiny", "lora_config": {"rank": 2}}
    made = owner.said("POST", "/api/v1/create_model", model)
    id = made["model_id"]
    for name in ("one", "two", "four"):
        saved = owner.said("POST", "/api/v1/save_weights", {"model_id": id, "path": name})
        retrieved(owner, saved["request_id"])
    sampling = {"session_id": session, "sampling_session_seq_id": 0, "base_model": "tiny"}
    owner.said("POST", "/api/v1/create_sampling_session", sampling)
    done = owner.said("POST", "/api/v1/forward", {"model_id": id, "forward_input": TINKER_BATCH})
    urls = owner.said("GET", f"/api/v1/training_runs/{id}/checkpoints/weights/one/external_weights_urls")["urls"]
    ticket = urls["manifest.json"].split("/")[-2]
    return {"session": session, "model": id, "request": done["request_id"], "ticket": ticket}


def retrieved(owner: Client, request: str) -> Any:
    while True:
        answer = owner.said("POST", "/api/v1/retrieve_future", {"request_id": request})
        if answer.get("type") != "try_again":
            return answer


@pytest.fixture(scope="module")
def callers(shared: Served) -> Iterator[dict[str, Client]]:
    """Whoever asks."""
    wrong = shared.key[:-6] + "wrong0"
    keys = dict(zip(ACTORS, ("", wrong, shared.other_key, shared.admin_key, shared.key), strict=True))
    clients = {actor: shared.client(key) for actor, key in keys.items()}
    yield clients
    for client in clients.values():
        client.close()


@pytest.fixture(scope="module")
def visitors(shared: Served) -> Iterator[dict[str, Client]]:
    """Whoever looks at the console: signed in, or not."""
    clients = {actor: shared.client("") for actor in ACTORS}
    clients["a wrong key"].cookies.set("fettle_console", "made-up")
    for actor, key in zip(ACTORS[2:], (shared.other_key, shared.admin_key, shared.key), strict=True):
        assert clients[actor].post("/sign-in", data={"key": key}).status_code == 303
    yield clients
    for client in clients.values():
        client.close()


@pytest.fixture(scope="module")
def responses(shared, things, callers, visitors) -> Mapping[str, Mapping[str, httpx.Response]]:
    """What each request was answered, by whoever made it; the one that is let in is made last."""
    told = {}
    for name, row in ROWS.items():
        method, path = name.split()
        address = filled(path, {**things, **filled(row.at, things)}) + row.query
        ask, asking = (on_console, visitors) if name in CONSOLE else (Client.request, callers)
        last = "an admin's key" if row.who == "an admin" else "its owner's key"
        order = sorted(ACTORS, key=lambda actor: actor == last)
        body = {} if method == "GET" or row.body is None else {"json": filled(row.body, things)}
        told[name] = {actor: ask(asking[actor], method, address, **body) for actor in order}
    return told


def on_console(client: Client, method: str, address: str, json: Any = None) -> httpx.Response:
    """A page, or one of its forms with what each of them brings along."""
    if method == "GET":
        return client.get(address)
    token = re.search(r'name="csrf" value="([^"]+)"', client.get("/").text)
    return client.post(address, data={**(json or {}), "csrf": token[1] if token else ""})


@pytest.fixture(scope="module")
def answers(responses) -> Mapping[str, tuple[str, ...]]:
    """The same, in the words of the table."""
    return {name: tuple(said(ROWS[name], told[actor]) for actor in ACTORS) for name, told in responses.items()}


def said(row: Row, response: httpx.Response) -> str:
    """Let in, or the status; being led to the sign-in page is a 401."""
    leads_to = response.headers.get("location", "") + response.headers.get("hx-redirect", "")
    if leads_to.startswith("/sign-in?"):
        return "401"
    status = f"{response.status_code}"
    return LET_IN if response.status_code < 400 else row.instead.get(status, status)


def test_every_request_that_the_service_takes_has_a_row(shared):
    taken = {
        f"{method} {plain(str(route.path))}"
        for route in iter_route_contexts(app_of(shared.service).routes)
        for method in set(route.methods or {"ANY"}) - {"HEAD"}
    }
    assert taken - ROWS.keys() == set(), "requests that nobody has said who may make"
    assert ROWS.keys() - taken == set(), "rows of requests that are not taken"


@pytest.mark.parametrize("name", ROWS)
def test_each_is_answered_as_its_row_says(answers, responses, name):
    expected = zip(ACTORS, answers[name], EXPECTED[ROWS[name].who], strict=True)
    otherwise = [
        f"{actor}: {answer} in the place of {wanted}: {responses[name][actor].text[:300]}"
        for actor, answer, wanted in expected
        if answer != wanted
    ]
    assert otherwise == []


def test_the_page_says_what_was_answered(answers):
    text = page(answers)
    sys.stdout.write(text)
    if os.environ.get("FETTLE_WRITE_PAGES"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text, "FETTLE_WRITE_PAGES=1 pytest tests/service/test_authorization.py writes it"


def test_a_foreign_thing_is_answered_word_for_word_as_one_that_is_not_there(things, callers):
    stranger = callers["another tenant's key"]
    for path, id in (("/v1/runs/{}", things["run"]), ("/v1/samplers/{}", things["sampler"])):
        foreign = stranger.get(path.format(id))
        unknown = stranger.get(path.format("nosuch"))
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.text.replace(id, "nosuch") == unknown.text


def test_what_its_owner_has_published_every_tenant_may_read_and_none_may_change(things, callers, answers):
    published = f"/v1/checkpoints/{things['run']}/weights/two"
    stranger = callers["another tenant's key"]
    assert stranger.get(published).status_code == 200
    assert stranger.get(f"{published}/files/manifest.json").status_code == 200
    changes = [
        stranger.delete(published),
        stranger.put(f"{published}/ttl", json={"ttl_seconds": 1}),
        stranger.delete(f"{published}/publish"),
    ]
    assert [answer.status_code for answer in changes] == [404] * 3
    assert stranger.get(published).status_code == 200
