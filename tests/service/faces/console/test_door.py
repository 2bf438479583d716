"""Who gets in, what browsers are told, and what a foreign page cannot do."""

import re
from importlib.resources import files

import httpx
import pytest

from fettle.service.faces import console
from fettle.service.faces.console.visitors import MOST_SIGNED_IN
from tests.service.served import serving

CSRF = re.compile(r'name="csrf" value="([^"]+)"')


@pytest.fixture
def visitor(shared):
    """A browser's cookies without the browser."""
    with httpx.Client(base_url=shared.url, trust_env=False, verify=False) as client:
        answer = client.post("/sign-in", data={"key": shared.key, "next": "/"})
        assert answer.status_code == 303
        yield client


def csrf(visitor: httpx.Client, path: str = "/") -> str:
    return CSRF.search(visitor.get(path).text)[1]


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(shared):
    answer = httpx.post(f"{shared.url}/sign-in", data={"key": shared.key})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert shared.key not in answer.headers["set-cookie"]


def test_browsers_are_told_to_run_nothing_but_our_files(visitor):
    for path in ("/", "/sign-in", "/static/console.js", "/parts/queue"):
        answer = visitor.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", visitor.get("/").text)


@pytest.mark.parametrize("path", ["/", "/runs/x", "/runs/x/samples", "/queue", "/usage", "/keys"])
def test_nobody_sees_a_page_without_signing_in(shared, path):
    answer = httpx.get(f"{shared.url}{path}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/sign-in?next={path}")


def test_a_part_of_a_page_sends_the_whole_page_to_the_door(shared):
    answer = httpx.get(f"{shared.url}/parts/queue", headers={"HX-Request": "true"})
    assert answer.headers["hx-redirect"] == "/sign-in"


@pytest.mark.parametrize("next", ["https://evil.example/", "//evil.example", "/\\evil.example", "evil"])
def test_signing_in_leads_nowhere_else(shared, next):
    answer = httpx.post(f"{shared.url}/sign-in", data={"key": shared.key, "next": next})
    assert answer.headers["location"] == "/"


def test_a_form_without_its_token_does_nothing(shared, visitor):
    with shared.client() as client:
        client.new_run(id="guarded")
    for data in ({"state": "completed"}, {"state": "completed", "csrf": "guessed"}):
        assert visitor.post("/runs/guarded/state", data=data).status_code == 403
    good = {"state": "completed", "csrf": csrf(visitor)}
    assert visitor.post("/runs/guarded/state", data=good, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    with shared.client() as client:
        assert client.said("GET", "/v1/runs/guarded")["state"] == "active"
    assert visitor.post("/runs/guarded/state", data=good).status_code == 303


def test_what_is_anothers_is_not_here(shared, visitor):
    with shared.client(shared.other_key) as client:
        client.new_run(id="foreign")
    for path in ("/runs/{}", "/runs/{}/samples", "/parts/runs/{}/status", "/parts/runs/{}/series"):
        foreign, unknown = visitor.get(path.format("foreign")), visitor.get(path.format("unknown"))
        assert (foreign.status_code, unknown.status_code) == (404, 404)
        assert foreign.text.replace("foreign", "unknown") == unknown.text
    token = csrf(visitor)
    for path, data in (("/runs/foreign/state", {"state": "paused"}), ("/runs/foreign/checkpoints", {"act": "delete"})):
        assert visitor.post(path, data={"csrf": token, "id": "foreign/weights/x", **data}).status_code == 404


def test_keys_are_for_admins(visitor):
    assert visitor.get("/keys").status_code == 403
    assert visitor.post("/keys", data={"csrf": csrf(visitor), "tenant": "x"}).status_code == 403
    assert "Keys" not in visitor.get("/").text


def test_a_revoked_key_shows_nothing_more(shared):
    key, secret = shared.call(shared.service.keys.create("one", name="short"))
    with httpx.Client(base_url=shared.url, trust_env=False, verify=False) as client:
        client.post("/sign-in", data={"key": secret})
        assert client.get("/").status_code == 200
        shared.call(shared.service.keys.revoke(key.id))
        assert client.get("/").status_code == 303


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/runs/odd/state", {"state": "flying"}),
        ("/runs/odd/checkpoints", {"act": "eat", "id": "odd/weights/x"}),
        ("/runs/odd/checkpoints", {"act": "keep", "id": "odd/weights/x", "days": "many"}),
    ],
)
def test_what_a_form_cannot_ask_is_a_page_that_says_so(shared, visitor, path, data):
    if visitor.get("/runs/odd").status_code == 404:
        with shared.client() as client:
            client.new_run(id="odd")
    answer = visitor.post(path, data={"csrf": csrf(visitor), **data})
    assert answer.status_code == 400
    assert "That cannot be" in answer.text


def test_what_others_wrote_has_its_licence_beside_it():
    beside = {path.name for path in (files(console) / "static").iterdir()}
    assert {"htmx.min.js", "htmx.LICENSE", "uPlot.iife.min.js", "uPlot.min.css", "uPlot.LICENSE"} <= beside


def test_only_files_for_browsers_are_served(shared):
    assert httpx.get(f"{shared.url}/static/htmx.min.js").status_code == 200
    for name in ("htmx.LICENSE", "..%2fface.py", "face.py"):
        assert httpx.get(f"{shared.url}/static/{name}").status_code == 404


def test_a_service_without_keys_needs_no_door_and_shows_itself_at_home_only(tmp_path, tiny_model):
    with serving(tmp_path / "state", tiny_model, auth="none") as served:
        assert "No runs yet" in httpx.get(served.url).text
        assert httpx.get(served.url, headers={"Host": "rebound.example"}).status_code == 403


def test_who_signs_in_often_signs_nobody_else_out(shared, visitor):
    with httpx.Client(base_url=shared.url, trust_env=False, verify=False) as other:
        first = other.post("/sign-in", data={"key": shared.other_key}).cookies
        for _ in range(MOST_SIGNED_IN):
            assert other.post("/sign-in", data={"key": shared.other_key}).status_code == 303
        assert other.get("/").status_code == 200
        other.cookies = first
        assert other.get("/").status_code == 303, "of one's own, the oldest goes"
    assert visitor.get("/").status_code == 200


def test_a_step_of_a_thousand_digits_is_none(shared, visitor):
    with shared.client() as client:
        run = client.new_run(lora={"rank": 2})
    assert visitor.get(f"/runs/{run}/samples", params={"step": "9" * 5000}).status_code == 200
