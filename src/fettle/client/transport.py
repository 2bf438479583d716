"""Requests to a service over keep-alive connections: frames both ways, repeated until one is answered or time is up.

Every request can be repeated: what changes something carries a number or a key of the caller's, by which the service
knows it again.
"""

import asyncio
import json
import ssl
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import httpx

from fettle.client.acknowledgements import Acknowledgements
from fettle.errors import (
    AuthenticationError,
    ConfigError,
    DataError,
    EngineError,
    FettleError,
    ForbiddenError,
    NotFoundError,
    TooLargeError,
    UnreachableError,
)
from fettle.frames import MEDIA_TYPE, Tree, packed, result_of, unpacked
from fettle.patience import answer

PATIENCE = 300.0
"""Seconds for which a request is repeated where nobody says otherwise: a server may be restarted meanwhile."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds between attempts; each pause is twice the one before."""

CONNECTING, ANSWERING = 10.0, 60.0
"""Seconds that a connection may take, and an answer beyond what it was asked to wait."""

AGAIN = frozenset({429, 502, 503, 504})
"""Answers that say nothing of the request itself: too much to do, or nobody there to do it."""

WAIT = 30.0
"""Seconds that the service is asked to take over one question whether something is done."""

KEPT_CONNECTIONS = 64

COMPRESSED_FROM = 16 * 1024
"""Bytes of a body from which on it is compressed, wherever the service is."""

LEVEL = 4
"""Of zlib: 7 ms for a MiB of a policy gradient's batch, which JSON says in ten times what is then sent."""

WITHOUT_CODE: Mapping[int, type[FettleError]] = MappingProxyType(
    {401: AuthenticationError, 403: ForbiddenError, 404: NotFoundError, 413: TooLargeError}
)
"""What an answer means that names no error of ours, as those of proxies do."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status, and what was said."""

    status: int
    tree: Tree


class Transport:
    """The connections to one service, and the key that it knows the caller by."""

    def __init__(self, url: str, key: str | None = None, *, patience: float = PATIENCE) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is no address of a service: give one such as http://127.0.0.1:8700")
        self.url = url.rstrip("/")
        self.patience = patience
        """Seconds for which a request is repeated."""
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=headers(key),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS),
            verify=verification(self.url),
        )
        self.read = Acknowledgements(self)
        """Answers that the service need not keep."""

    async def get(self, path: str, *, wait: float = 0.0, **query: str | int) -> Tree:
        """What is said there; the service may take ``wait`` seconds over it."""
        return (await self.request("GET", path, wait=wait, query=query)).tree

    async def whole(self, path: str, name: str, *, after: int) -> list[dict[str, Any]]:
        """All of a list that is told in parts."""
        found: list[dict[str, Any]] = []
        while True:
            told = await self.get(path, offset=len(found), after=after)
            found += told[name]
            if not told["more"]:
                return found

    async def post(self, path: str, tree: Tree = None, *, wait: float = 0.0, patience: float | None = None) -> Tree:
        """What is said to a tree."""
        return (await self.request("POST", path, tree, wait=wait, patience=patience)).tree

    async def request(
        self,
        method: str,
        path: str,
        tree: Tree = None,
        *,
        wait: float = 0.0,
        query: Mapping[str, str | int] = MappingProxyType({}),
        patience: float | None = None,
    ) -> Answer:
        """One request, repeated where it was not answered, with a pause that grows or that the service asks for.

        ``patience`` is in the place of the transport's own.

        Raises:
            UnreachableError: nobody answered for as long as there is patience.
            FettleError: what the service raised; one that may pass, such as being busy, once patience is at its end.
        """
        (body, kind), asked = await _said(tree), dict(query)
        if wait:
            asked["wait"] = f"{wait:g}"
        response = await repeated(
            lambda: self._http.request(method, path, content=body, params=asked, headers=kind, timeout=_timeout(wait)),
            self.url,
            patience=self.patience if patience is None else patience,
        )
        if response.is_success:
            return Answer(response.status_code, tree_of(response))
        raise error_of(response)

    async def download(self, path: str, *, to: Any) -> None:
        """Write what lies there into an open file, piece by piece.

        Raises:
            UnreachableError: it did not come whole.
        """
        try:
            async with self._http.stream("GET", path, timeout=_timeout(0.0)) as response:
                if not response.is_success:
                    await response.aread()
                    raise error_of(response)
                async for piece in response.aiter_bytes():
                    to.write(piece)
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error

    async def close(self) -> None:
        """Say what was read last, and end the connections."""
        await self.read.close()
        await self._http.aclose()


async def repeated(ask: Callable[[], Awaitable[httpx.Response]], url: str, *, patience: float) -> httpx.Response:
    """The answer to a request, repeated with a pause that grows or that the service asks for.

    Raises:
        UnreachableError: nobody answered for as long as there is patience.
    """
    try:
        return await answer(ask, passing=AGAIN, first=FIRST_PAUSE, longest=LONGEST_PAUSE, seconds=patience)
    except httpx.RequestError as error:
        raise unreachable(url, error) from error


async def outcome(transport: Transport, promise: str, *, shared: bool = False) -> Any:
    """What an operation or a draw came to, once it is done; one that is ``shared`` is asked for by others as well.

    Raises:
        FettleError: what it failed with.
    """
    while True:
        told = await transport.get(f"/v1/futures/{promise}", wait=WAIT)
        if told["status"] != "pending":
            if not shared:
                transport.read.add(promise)
            return settled(told)


def settled(told: Mapping[str, Tree]) -> Any:
    """The result of an operation that is done.

    Raises:
        FettleError: what it failed with.
    """
    if told["status"] == "failed":
        raise result_of({"type": "error", **told["error"]})
    return read(told["result"])


def read(tree: Tree) -> Any:
    """A result with a type of ours as what it is; anything else, such as what a documented verb tells, as it came."""
    return result_of(tree) if isinstance(tree, Mapping) and "type" in tree else tree


def error_of(response: httpx.Response) -> FettleError:
    """The error that an answer names, or what its status means where it names none."""
    try:
        told = tree_of(response)
        error: FettleError = result_of({"type": "error", **told["error"]})
    except (FettleError, KeyError, TypeError, IndexError):
        said = response.text[:200].strip().replace("\n", " ") or "nothing"
        kind = (
            UnreachableError if response.status_code in AGAIN else WITHOUT_CODE.get(response.status_code, EngineError)
        )
        return kind(f"{response.request.url} answered {response.status_code} and said {said}")
    return error


def unreachable(url: str, error: httpx.RequestError) -> UnreachableError:
    """What a connection that failed means."""
    why = str(error).strip() or type(error).__name__
    return UnreachableError(f"{url} cannot be reached ({why}): see that the service runs, and that it is there")


def verification(url: str) -> ssl.SSLContext | bool:
    """How a service's certificate is verified: as the system does it; nothing is loaded where there is none."""
    return ssl.create_default_context() if url.startswith("https:") else False


def headers(key: str | None) -> dict[str, str]:
    """What every request carries."""
    accepted = {"Accept": f"{MEDIA_TYPE}, application/json"}
    return accepted if key is None else {**accepted, "Authorization": f"Bearer {key}"}


def tree_of(response: httpx.Response) -> Tree:
    """What an answer says, be it a frame or JSON.

    Raises:
        DataError: it is neither.
    """
    if response.headers.get("Content-Type", "").startswith(MEDIA_TYPE):
        return unpacked(response.content)
    if not response.content:
        return None
    try:
        return json.loads(response.content)
    except ValueError as error:
        raise DataError(f"{response.request.url} answered with neither a frame nor JSON: is it a service?") from error


async def _said(tree: Tree) -> tuple[bytes | None, dict[str, str]]:
    """A request's body, and what its headers say of it."""
    if tree is None:
        return None, {}
    body, kind = packed(tree), {"Content-Type": MEDIA_TYPE}
    if len(body) < COMPRESSED_FROM:
        return body, kind
    return await asyncio.to_thread(zlib.compress, body, LEVEL), {**kind, "Content-Encoding": "deflate"}


def _timeout(wait: float) -> httpx.Timeout:
    return httpx.Timeout(ANSWERING, connect=CONNECTING, read=ANSWERING + wait, pool=None)
