"""Requests that are too large, too slow, damaged or lost: refused in a sentence, and never with a 500."""

import asyncio
import gzip
import json
import socket
import time
import zlib

import httpx
import pytest
import zstandard

from fettle.config import ServedModel, ServiceConfig
from fettle.service.intake import Intake
from fettle.service.limits import Limits
from tests.service.served import serving

MIB = 1 << 20
PROMPT = {"requests": [{"prompt": [5, 9], "params": {"max_tokens": 1}}]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory, tiny_model):
    state = tmp_path_factory.mktemp("limits") / "state"
    with serving(state, tiny_model, max_body_mib=1, request_timeout_s=1.0) as found:
        yield found


def tokenized(client, body: bytes, **headers: str) -> httpx.Response:
    kind = {"Content-Type": "application/json"}
    return client.post("/v1/tokenize", content=body, headers={**kind, **headers})


def raw(served, request: bytes, *, then: float = 0.0, drip: bytes = b"") -> bytes:
    """What comes back for some bytes, after which a byte is sent now and then."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        until = time.monotonic() + then
        try:
            while drip and time.monotonic() < until:
                connection.sendall(drip)
                time.sleep(0.1)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            return b""


def test_a_body_beyond_the_limit_is_refused_whether_or_not_its_length_is_said(client):
    body = json.dumps({"text": "a" * MIB}).encode()
    announced = tokenized(client, body)
    streamed = client.post(
        "/v1/tokenize",
        content=(body[i : i + 4096] for i in range(0, len(body), 4096)),
        headers={"Content-Type": "application/json"},
    )
    for response in (announced, streamed):
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "too_large"


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstandard.ZstdCompressor().compress)],
)
def test_compressed_bodies_are_opened_within_the_limit(client, encoding, packed):
    body = json.dumps({"text": "one two"}).encode()
    opened = tokenized(client, packed(body), **{"Content-Encoding": encoding})
    assert opened.json() == tokenized(client, body).json()
    bomb = tokenized(client, packed(b" " * (64 * MIB)), **{"Content-Encoding": encoding})
    assert (bomb.status_code, bomb.json()["error"]["code"]) == (413, "too_large")
    damaged = tokenized(client, b"\x00damaged\xff" * 9, **{"Content-Encoding": encoding})
    assert (damaged.status_code, damaged.json()["error"]["code"]) == (400, "data")


@pytest.mark.parametrize(("encoding", "packed"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_body_that_is_cut_short_is_refused(client, encoding, packed):
    short = packed(b'{"text": "one two"}')[:-4]  # all that it says, and not the sum that it ends with
    refused = tokenized(client, short, **{"Content-Encoding": encoding})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "data")
    assert "cut short" in refused.json()["detail"]


def test_a_frame_of_zstd_that_looks_far_back_is_refused(client):
    far = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    writer = zstandard.ZstdCompressor(compression_params=far).compressobj()
    body = writer.compress(b'{"text": "one two"}') + writer.flush()
    refused = tokenized(client, body, **{"Content-Encoding": "zstd"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "data")


def test_json_is_smaller_than_arrays_may_be_since_all_wait_while_it_is_read(tmp_path, tiny_model):
    with serving(tmp_path / "state", tiny_model) as served, served.client() as client:
        body = zlib.compress(b"[" + b"[1]," * (5 * MIB) + b"[1]]")
        for path in ("/v1/completions", "/v1/tokenize", "/api/v1/asample", "/api/v1/forward_backward"):
            headers = {"Content-Type": "application/json", "Content-Encoding": "deflate"}
            assert client.post(path, content=body, headers=headers).status_code == 413
        headers = {"Content-Type": "application/vnd.fettle.frame", "Content-Encoding": "deflate"}
        assert client.post("/v1/tokenize", content=body, headers=headers).status_code == 400


def test_an_encoding_that_is_not_known_is_refused_by_name(client):
    refused = tokenized(client, b"{}", **{"Content-Encoding": "br"})
    assert refused.status_code == 400
    assert "gzip, deflate, zstd" in refused.json()["detail"]


def test_a_body_that_dribbles_is_cut_off(shared):
    head = f"POST /v1/tokenize HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {shared.key}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    answer = raw(shared, head.encode(), then=4.0, drip=b" ")
    assert not answer or answer.startswith(b"HTTP/1.1 408")
    with shared.client() as client:
        assert client.said("GET", "/healthz") == {"status": "ok"}


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/keys", "/api/v1/asample", "/v1/tokenize"])
def test_a_body_is_read_of_nobody_without_a_key(shared, path):
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n"
    answer = raw(shared, head.encode())  # none of the body is sent
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"\r\nconnection: close\r\n" in answer.lower()


def test_a_connection_is_closed_after_an_answer_that_left_the_body_unread(shared):
    head = f"POST /v1/runs/nosuch/nothing HTTP/1.1\r\nHost: a\r\nX-API-Key: {shared.key}\r\nContent-Length: 9\r\n\r\n"
    started = time.monotonic()
    assert raw(shared, head.encode() + b"x").startswith(b"HTTP/1.1 404")
    assert time.monotonic() - started < 15.0


def test_a_connection_on_which_no_request_follows_is_cut_off(shared):
    host, port = shared.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"\r\n")  # before the next request, where it means nothing
        assert b"".join(iter(lambda: closed(connection), b"")) in (b"", b'{"status":"ok"}')


def closed(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\n" + b"X-Much: " + b"x" * 70_000,
        b"GET /" + b"x" * 70_000,
        b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 20_000,
    ],
    ids=["one header", "the address", "many headers"],
)
def test_a_head_that_is_too_large_is_refused(shared, head):
    answer = raw(shared, head)
    assert not answer or answer.startswith(b"HTTP/1.1 431")
    whole = raw(shared, b"GET /healthz HTTP/1.1\r\nX-Much: " + b"x" * 60_000 + b"\r\nConnection: close\r\n\r\n")
    assert whole.startswith(b"HTTP/1.1 200")


def test_only_so_many_connections_are_kept(tmp_path, tiny_model):
    with serving(tmp_path / "state", tiny_model, max_connections=2) as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))), socket.create_connection((host, int(port))):
            assert raw(served, b"").startswith(b"HTTP/1.1 503")
        with served.client() as client:
            assert client.said("GET", "/healthz") == {"status": "ok"}


def test_headers_that_never_end_are_cut_off(shared):
    started = time.monotonic()
    assert raw(shared, b"GET /healthz HTTP/1.1\r\n", then=15.0, drip=b"x") == b""
    assert time.monotonic() - started < 15.0


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[1, 2",
        b"nothing",
        b"NaN",
        b'{"text": Infinity}',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"text": 1e999}',
        b"7" * 9000,
    ],
)
def test_what_is_no_json_is_refused(client, body):
    response = tokenized(client, body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "data"


@pytest.mark.parametrize("body", [b"", b"FTL1", b"FTL1\xff\xff\xff\xff", b"FTL1\x04\x00\x00\x00null", b"nothing"])
def test_what_is_no_frame_is_refused(client, body):
    response = tokenized(client, body, **{"Content-Type": "application/vnd.fettle.frame"})
    assert response.status_code == 400
    assert response.json()["detail"]


def test_a_body_of_another_kind_is_refused_with_the_kinds_that_are_taken(client):
    response = tokenized(client, b"text=one", **{"Content-Type": "application/x-www-form-urlencoded"})
    assert response.status_code == 400
    assert "application/json" in response.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("DELETE", "/v1/runs", 405), ("GET", "/v1/runs?limit=many", 422), ("GET", "/v1//", 404)],
)
def test_every_refusal_has_a_sentence_and_a_code(client, method, path, status):
    response = client.request(method, path)
    assert response.status_code == status
    told = response.json()
    assert told["error"]["message"] == told["detail"]
    assert told["error"]["code"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_request_keeps_its_id_if_it_has_a_good_one(client):
    assert client.get("/healthz", headers={"X-Request-Id": "mine-1"}).headers["X-Request-Id"] == "mine-1"
    assert client.get("/healthz", headers={"X-Request-Id": "not good"}).headers["X-Request-Id"] != "not good"


def addresses(served, headers: dict[str, str]) -> set[str]:
    """Where refused keys came from, as the audit log says."""
    with served.client("") as nobody:
        assert nobody.get("/v1/runs", headers=headers).status_code == 401
    with served.client(served.admin_key) as admin:
        return {row["address"] for row in admin.said("GET", "/v1/audit?event=key_refused")["rows"]}


@pytest.mark.parametrize(
    ("proxies", "said", "address"),
    [
        ((), "6.6.6.6", "127.0.0.1"),
        (("10.0.0.1",), "6.6.6.6", "127.0.0.1"),
        (("127.0.0.0/8",), "6.6.6.6, 7.7.7.7", "7.7.7.7"),
        (("127.0.0.1", "7.7.7.7"), "6.6.6.6, 7.7.7.7", "6.6.6.6"),
    ],
)
def test_a_callers_address_is_read_from_proxies_that_are_trusted_alone(tmp_path, tiny_model, proxies, said, address):
    with serving(tmp_path / "state", tiny_model, trusted_proxy=proxies) as served:
        assert addresses(served, {"X-Forwarded-For": said}) == {address}


def test_a_proxy_without_an_address_is_refused(tiny_model):
    with pytest.raises(ValueError, match=r"proxy\.local, which is no address"):
        ServiceConfig(models=(ServedModel(name="tiny", path=tiny_model),), trusted_proxy=("proxy.local",))


def asked_for_ever(connection: socket.socket, request: bytes) -> None:
    """A request again and again, until the connection is ended."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        connection.sendall(request)
        time.sleep(0.05)


def test_a_client_that_reads_nothing_of_its_answers_is_let_go(shared):
    host, port = shared.url.removeprefix("http://").split(":")
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: here\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect((host, int(port)))
        with pytest.raises(ConnectionError):
            asked_for_ever(connection, asked)
    with shared.client() as client:
        client.said("GET", "/healthz")


@pytest.mark.parametrize("packed", [gzip.compress, zstandard.ZstdCompressor().compress])
async def test_a_few_bytes_that_hold_very_much_wait_for_room_before_they_are_opened_whole(packed):
    body, intake, told = b" " * (16 * MIB), Intake(2 * MIB), []
    kind = next(name for name, magic in (("gzip", b"\x1f\x8b"), ("zstd", b"\x28\xb5")) if packed(body)[:2] == magic)

    async def app(scope, receive, send):
        told.append(len((await receive())["body"]))

    async def receive():
        return {"type": "http.request", "body": packed(body), "more_body": False}

    limits = Limits(app, max_body_mib=32, timeout_s=30)
    limits._intake = intake
    headers = [(b"content-encoding", kind.encode()), (b"content-type", b"application/x-protobuf")]
    scope = {"type": "http", "method": "POST", "path": "/v1/tokenize", "headers": headers}
    other = object()
    await intake.take(other, MIB)
    opening = asyncio.ensure_future(limits(scope, receive, None))
    await asyncio.sleep(0.5)
    assert not told
    assert intake._total <= 2 * MIB
    intake.give_back(other)
    await opening
    assert told == [len(body)]
