"""Links to a checkpoint's files: they lead to this service, whatever a request says of where it is."""

import pytest

from fettle.config import ServedModel, ServiceConfig
from tests.service.faces.tinker.programs import http_of, made, retrieved
from tests.service.served import serving


def links(http, **headers: str) -> dict[str, str]:
    """Of a model that was just saved."""
    model = made(http)
    retrieved(http, http.post("/save_weights", json={"model_id": model, "path": "one"}).json()["request_id"])
    address = f"/training_runs/{model}/checkpoints/weights/one/external_weights_urls"
    return http.get(address, headers=headers).json()["urls"]


def test_links_do_not_name_the_host_that_a_request_claims_to_be_for(shared, http):
    urls = links(http, **{"Host": "elsewhere.example:80", "X-Forwarded-Host": "elsewhere.example"})
    assert urls
    assert all(url.startswith(f"{shared.url}/api/v1/external_weights/") for url in urls.values())
    assert http.get(urls["manifest.json"], headers={"X-API-Key": ""}).status_code == 200


def test_links_name_the_public_address_where_there_is_one(tmp_path, tiny_model):
    public = "https://train.example.org/fettle/"
    with serving(tmp_path / "state", tiny_model, public_url=public) as served, http_of(served) as http:
        urls = links(http)
    assert all(url.startswith(f"{public}api/v1/external_weights/") for url in urls.values())


@pytest.mark.parametrize("url", ["train.example.org", "ftp://a", "http://", "https://a b", "https://a/?b=c"])
def test_a_public_address_that_is_none_is_refused(tiny_model, url):
    with pytest.raises(ValueError, match="public_url"):
        ServiceConfig(models=(ServedModel(name="tiny", path=tiny_model),), public_url=url)
