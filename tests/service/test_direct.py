"""Routes whose endpoints are called with what they name."""

from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from pydantic import BaseModel

from fettle.service.direct import DirectRoute


class Body(BaseModel):
    """What the framework would read."""


async def caller_of(request: Request) -> str:
    """Who calls."""
    return request.headers.get("x-caller", "nobody")


def application() -> FastAPI:
    """One route that says what it was called with, and one beside it."""
    router = APIRouter(prefix="/v1", route_class=DirectRoute)

    @router.post("/runs/{run_id}/sample")
    async def sample(
        request: Request,
        caller: Annotated[str, Depends(caller_of)],
        run_id: str,
        wait: Annotated[float, Query(ge=0, le=60)] = 1.5,
    ) -> Response:
        return Response(f"{request.method} {caller} {run_id} {wait!r}")

    @router.get("/files/{name:path}")
    async def file(name: str) -> Response:
        return Response(f"file {name}")

    app = FastAPI()
    app.router.routes.extend(router.routes)
    return app


async def answered(method: str, path: str, **given: str) -> httpx.Response:
    """What the application answers."""
    headers = {name.replace("_", "-"): value for name, value in given.items()}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application()), base_url="http://here") as http:
        return await http.request(method, path, headers=headers)


async def test_an_endpoint_is_called_with_its_caller_the_words_of_its_path_and_values_of_its_query():
    assert (await answered("POST", "/v1/runs/r%201/sample?wait=2", x_caller="me")).text == "POST me r 1 2.0"


async def test_a_value_that_is_not_given_is_the_one_that_the_endpoint_has():
    assert (await answered("POST", "/v1/runs/r1/sample")).text == "POST nobody r1 1.5"


async def test_words_of_a_path_may_have_slashes_where_the_route_says_so():
    assert (await answered("GET", "/v1/files/a/b.json")).text == "file a/b.json"


async def test_a_value_that_cannot_be_is_refused_by_its_place():
    refused = await answered("POST", "/v1/runs/r1/sample?wait=61")
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["query", "wait"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/runs/r1/sample", 405), ("POST", "/v1/x", 404)])
async def test_what_no_route_is_for_is_told_so(method, path, status):
    assert (await answered(method, path)).status_code == status


def test_the_route_is_described_like_any_other():
    parameters = application().openapi()["paths"]["/v1/runs/{run_id}/sample"]["post"]["parameters"]
    assert [each["name"] for each in parameters] == ["run_id", "wait"]
    assert parameters[1]["schema"]["maximum"] == 60


def test_an_endpoint_that_asks_for_a_body_is_refused():
    router = APIRouter(route_class=DirectRoute)

    async def endpoint(body: Body) -> Response:
        return Response()

    with pytest.raises(TypeError, match="more than a direct route looks at"):
        router.add_api_route("/x", endpoint, methods=["POST"])
