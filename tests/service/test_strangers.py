"""A service that asks nobody for a key answers nobody but this machine's own programs and its own pages."""

import pytest

from tests.service.served import serving

PATHS = ["/", "/healthz", "/v1/models", "/v1/runs", "/api/v1/healthz", "/metrics"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory, tiny_model):
    with serving(tmp_path_factory.mktemp("strangers") / "state", tiny_model, auth="none") as found:
        yield found


@pytest.mark.parametrize("path", PATHS)
def test_a_name_that_was_made_to_point_here_is_refused(shared, path):
    with shared.client("") as client:
        assert client.get(path).status_code == 200
        refused = client.get(path, headers={"Host": "rebound.example"})
    assert refused.status_code == 403
    assert "127.0.0.1" in refused.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/completions", "/v1/tokenize", "/api/v1/forward_backward", "/api/v1/create_session"]
)
def test_what_another_site_sends_is_refused(shared, headers, path):
    with shared.client("") as client:
        assert client.post(path, content=b"x", headers=headers).status_code == 403


def test_its_own_pages_are_answered(shared):
    with shared.client("") as client:
        own = {"Origin": shared.url, "Sec-Fetch-Site": "same-origin"}
        assert client.post("/v1/tokenize", json={"text": "one"}, headers=own).status_code == 200


def test_a_media_type_that_only_holds_the_name_of_another_is_none(shared):
    with shared.client("") as client:
        refused = client.post(
            "/api/v1/forward_backward", content=b"x", headers={"Content-Type": "text/plain; application/x-protobuf"}
        )
    assert refused.status_code == 400
    assert "Content-Type is text/plain" in refused.json()["detail"]
