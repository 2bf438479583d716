"""What the service adds to the computing: its time an operation, the size of requests, and how it bears a rush.

The overhead of an operation is what passes on the server from its request coming in to its answer going out, less the
seconds in which the backend computed meanwhile: reading the body, checking it, the journal (which is on the disk before
the answer goes out), the queue, and writing the answer. One operation at a time, asked for with ``?wait``, so that one
request is all there is, and each request in one piece, so that nobody waits for the rest of it;
``benchmarks.timed_server`` says how it is measured. What a client sees is told beside it.

A rush: 512 draws at once, no two of which are of as many completions of the same length, so that a mixed-up answer
shows; and 208 requests of 3.3 MB in JSON at once, written beforehand, on a model so small that reading them is most of
the work.
"""

import asyncio
import json
import socket
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPResponse
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from benchmarks import models
from benchmarks.figures import spread
from benchmarks.harness import CACHE, Outcome, Row, Settings, main
from benchmarks.machine import Floor
from benchmarks.served import Service, Tenant
from benchmarks.tables import table
from benchmarks.timed_server import ADDRESS
from fettle.calls import Forward, ForwardBackward, OptimStep, call_tree
from fettle.config import PPO, AdamW, CausalLM, TinyModel
from fettle.engine.local import make_tiny_model
from fettle.frames import MEDIA_TYPE, packed, plain, result_of, unpacked
from fettle.types import Datum, datum

ROW = Row(
    name="service",
    work="the service's own time for one operation in JSON, idle, journal included",
    peer="none: a bound",
    target=5.0,
    better="lower",
    unit="ms",
)
FASTEST = 1
"""zlib's level that costs least."""
BINARY_TARGET, SIZE_TARGET = 2.0, 10.0
TIMED = ("-m", "benchmarks.timed_server")
SEQUENCES, TOKENS, PROMPT = 8, 64, 16
FIRST_ID, VOCABULARY = 5, 500
REPETITIONS, QUICK_REPETITIONS = 200, 20
DRAWS, MOST_COMPLETIONS = 512, 3
REQUESTS, REQUEST_MB = 208, 3.3
PIPELINED = 64


@dataclass(frozen=True, slots=True)
class Wire:
    """How bodies are written, and sent."""

    name: str
    headers: dict[str, str]

    def body(self, tree: Any) -> bytes:
        """A request's body."""
        return packed(tree) if self.name == "binary" else _json(tree)

    def read(self, answer: httpx.Response) -> Any:
        """What an answer says."""
        if not answer.is_success:
            raise SystemExit(f"{answer.request.url} was answered {answer.status_code}: {answer.text[:500]}")
        return unpacked(answer.content) if self.name == "binary" else answer.json()

    def asks(self, line: socket.socket, key: str, path: str, body: bytes) -> None:
        """Send a request, head and body in one piece, and read its answer."""
        told = {"Host": "localhost", "Authorization": f"Bearer {key}", "Content-Length": len(body), **self.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        line.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        answer = HTTPResponse(line)
        answer.begin()
        content = answer.read()
        if answer.status != HTTPStatus.OK:
            raise SystemExit(f"{path} was answered {answer.status}: {content[:500]!r}")


BINARY = Wire("binary", {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE})
JSON = Wire("JSON", {"Content-Type": "application/json", "Accept": "application/json"})


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    repetitions = QUICK_REPETITIONS if settings.quick else REPETITIONS
    tiny = models.folder("tiny", ends=None)
    with tempfile.TemporaryDirectory(dir=CACHE) as name, ExitStack() as up:  # on a disk: /tmp may be memory
        folder = Path(name)
        with Service(tiny, folder / "overhead", threads=settings.threads, fettle=TIMED) as service:
            overheads = {wire.name: overhead(service, wire, repetitions) for wire in (JSON, BINARY)}
        service = up.enter_context(Service(tiny, folder / "draws", threads=settings.threads))
        pipelining = asyncio.run(_pipelining(service.tenant("line")))
        draws = asyncio.run(_draws(service, DRAWS // 8 if settings.quick else DRAWS))
        up.close()
        least = make_tiny_model(TinyModel(hidden=16, layers=1, heads=2, context=512), folder / "least", texts=["a b"])
        service = up.enter_context(Service(least, folder / "burst", threads=settings.threads))
        burst = asyncio.run(_burst(service, REQUESTS // 8 if settings.quick else REQUESTS))
    sizes = request_sizes()
    _show(overheads, sizes, pipelining, draws, burst)
    median = {name: found["forward_backward"]["overhead_ms"]["median"] for name, found in overheads.items()}
    return Outcome(
        median["JSON"],
        {"overhead": overheads, "request": sizes, "pipelining": pipelining, "draws": draws, "burst": burst},
        {},
        further={
            f"binary under {BINARY_TARGET:g} ms": median["binary"] < BINARY_TARGET,
            f"binary, deflated, {SIZE_TARGET:g} times smaller than JSON": sizes["times_smaller"] >= SIZE_TARGET,
            "all draws answered, each with its own": draws["right"] == draws["asked"],
            "the whole burst answered, once each": burst["right"] == burst["asked"] == burst["done_by_the_server"],
            "memory stays below the burst's own size": burst["memory_mb"] < burst["bodies_mb"],
        },
    )


def overhead(service: Service, wire: Wire, repetitions: int) -> dict[str, Any]:
    """Milliseconds of the server for one operation of each kind, beyond what the backend computed."""
    tenant = service.tenant(wire.name.lower())
    run, found = tenant.run(), {}
    bodies = {
        "forward_backward": wire.body({"data": call_tree(gradient(0))["data"], "loss": {"type": "ppo"}}),
        "optim_step": wire.body({"optimizer": AdamW(learning_rate=1e-4).model_dump(mode="json")}),
    }
    with socket.create_connection((urlsplit(service.url).hostname, urlsplit(service.url).port), timeout=60) as line:
        seen: dict[str, list[float]] = {verb: [] for verb in bodies}
        for _ in range(repetitions):
            for verb, body in bodies.items():
                started = time.perf_counter()
                wire.asks(line, tenant.key, f"/v1/runs/{run}/{verb}?wait=30", body)
                seen[verb].append(time.perf_counter() - started)
    told = [one for one in tenant.asks("GET", ADDRESS) if one["path"].startswith(f"/v1/runs/{run}/")]
    for verb, body in bodies.items():
        own = [one for one in told if one["path"].endswith(f"/{verb}")][repetitions // 10 :]  # the first warm it up
        found[verb] = {
            "overhead_ms": spread([1e3 * (one["seconds"] - one["computed"]) for one in own]),
            "overhead_processor_ms": spread(
                [1e3 * (one["processor_seconds"] - one["processor_computed"]) for one in own]
            ),
            "server_ms": spread([1e3 * one["seconds"] for one in own]),
            "client_ms": spread([1e3 * seconds for seconds in seen[verb][repetitions // 10 :]]),
            "body_bytes": len(body),
        }
    return found


def request_sizes() -> dict[str, float]:
    """Bytes of one request of 128 sequences, as a policy gradient's batch has them, plain and compressed."""
    rng, data = Random("sizes"), []
    for index in range(128):
        prompt, reply = rng.randint(16, 128), rng.randint(8, 64)
        mask = [0.0] * prompt + [1.0] * reply
        credit = rng.gauss(0, 1)
        data.append(
            datum(
                [rng.randrange(FIRST_ID, VOCABULARY) for _ in mask],
                mask,
                group=str(index // 8),
                advantages=[credit * each for each in mask],
                weights=[each / 4096 for each in mask],
                sampling_logprobs=[-rng.expovariate(1.0) * each for each in mask],
            )
        )
    tree = call_tree(ForwardBackward(data, PPO()))
    said, frame = _json(tree), packed(tree)
    deflated = zlib.compress(frame, FASTEST)
    return {
        "json_bytes": len(said),
        "json_deflated_bytes": len(zlib.compress(said, FASTEST)),
        "binary_bytes": len(frame),
        "binary_deflated_bytes": len(deflated),
        "times_smaller": len(said) / len(deflated),
    }


async def _pipelining(tenant: Tenant) -> dict[str, float]:
    """How much faster operations go that are submitted without waiting for the one before."""
    async with _client(tenant, BINARY) as http:
        run, seconds = tenant.run(), {}
        bodies = [BINARY.body({"incarnation": 0, "seq": seq, "call": _operation(seq)}) for seq in range(4 * PIPELINED)]
        done = 0
        for name in ("warm-up", "one by one", "pipelined"):
            own, done = bodies[done : done + PIPELINED], done + PIPELINED
            started = time.perf_counter()
            if name == "pipelined":
                promises = [BINARY.read(await http.post(f"/v1/runs/{run}/operations", content=body)) for body in own]
                await asyncio.gather(*(_outcome(http, BINARY, promise["id"]) for promise in promises))
            else:
                for body in own:
                    promise = BINARY.read(await http.post(f"/v1/runs/{run}/operations", content=body))
                    await _outcome(http, BINARY, promise["id"])
            seconds[name] = time.perf_counter() - started
    one, piped = seconds["one by one"] / PIPELINED, seconds["pipelined"] / PIPELINED
    return {"one_by_one_ms": 1e3 * one, "pipelined_ms": 1e3 * piped, "gain": one / piped}


async def _draws(service: Service, count: int) -> dict[str, Any]:
    """Many draws at once: how many got what they asked for."""
    tenant = service.tenant("draws")
    sampler, rng = tenant.sampler(), Random("draws")
    longest = -(-count // MOST_COMPLETIONS)
    asked = [(n, tokens) for tokens in range(1, longest + 1) for n in range(1, MOST_COMPLETIONS + 1)][:count]
    rng.shuffle(asked)
    prompts = [[rng.randrange(FIRST_ID, VOCABULARY) for _ in range(PROMPT)] for _ in asked]
    service.server.forget_peak()
    before = service.server.resident()

    async with _client(tenant, JSON) as http:

        async def one(index: int) -> bool:
            n, tokens = asked[index]
            params = {"max_tokens": tokens, "seed": index, "end_tokens": False}
            said = {"key": f"draw-{index}", "requests": [{"prompt": prompts[index], "n": n, "params": params}]}
            promise = JSON.read(await http.post(f"/v1/samplers/{sampler}/sample", content=JSON.body(said)))
            drawn = result_of(await _outcome(http, JSON, promise["id"]))
            return [len(completion.tokens) for completion in drawn] == [tokens] * n

        started = time.perf_counter()
        right = await asyncio.gather(*map(one, range(count)))
        seconds = time.perf_counter() - started
    tokens = sum(n * length for n, length in asked)
    peak = service.server.peak() - before
    return {"asked": count, "right": sum(right), "seconds": seconds, "tokens": tokens, "memory_mb": peak / 1e6}


async def _burst(service: Service, count: int) -> dict[str, Any]:
    """Many large requests at once, on four runs: how many were carried out, and what the server held meanwhile."""
    tenant = service.tenant("burst")
    runs = [tenant.run() for _ in range(4)]
    call = _json(_large(Random("burst")))
    # Written beforehand: a client that is still writing the last would send one after another.
    bodies = [b'{"incarnation":0,"seq":%d,"call":%b}' % (index // len(runs), call) for index in range(count)]
    service.server.forget_peak()
    before = service.server.resident()
    async with _client(tenant, JSON) as http:

        async def one(index: int) -> bool:
            run = runs[index % len(runs)]
            promise = JSON.read(await _insisting(http, f"/v1/runs/{run}/operations", bodies[index]))
            found = await _outcome(http, JSON, promise["id"])
            return bool(found["num_tokens"] > 0)

        started = time.perf_counter()
        right = await asyncio.gather(*map(one, range(count)))
        seconds = time.perf_counter() - started
    done = sum(tenant.asks("GET", f"/v1/runs/{run}")["next_seq"] for run in runs)
    return {
        "asked": count,
        "right": sum(right),
        "done_by_the_server": done,
        "seconds": seconds,
        "body_mb": len(bodies[0]) / 1e6,
        "bodies_mb": sum(map(len, bodies)) / 1e6,
        "memory_mb": (service.server.peak() - before) / 1e6,
    }


def _client(tenant: Tenant, wire: Wire) -> httpx.AsyncClient:
    headers = {**wire.headers, "Authorization": f"Bearer {tenant.key}"}
    return httpx.AsyncClient(
        base_url=tenant.url, headers=headers, timeout=600, limits=httpx.Limits(max_connections=None)
    )


async def _insisting(http: httpx.AsyncClient, path: str, body: bytes) -> httpx.Response:
    """The answer, asked for again as long as the service says that it is busy, when it says so."""
    while True:
        answer = await http.post(path, content=body)
        if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
            return answer
        await asyncio.sleep(float(answer.headers["Retry-After"]))


async def _outcome(http: httpx.AsyncClient, wire: Wire, promise: str) -> Any:
    """What an operation or a draw came to."""
    told: dict[str, Any] = {"status": "pending"}
    while told["status"] == "pending":
        told = wire.read(await http.get(f"/v1/futures/{promise}", params={"wait": "30"}))
    if told["status"] != "completed":
        raise SystemExit(f"{promise} failed: {told}")
    return told["result"]


def _operation(seq: int) -> Any:
    """Gradients and steps in turn."""
    return call_tree(OptimStep(AdamW(learning_rate=1e-4)) if seq % 2 else gradient(seq))


def gradient(seed: int) -> ForwardBackward:
    """A policy gradient's batch of 8 x 64 tokens."""
    rng = Random(f"gradient/{seed}")
    mask = [0.0] * PROMPT + [1.0] * (TOKENS - PROMPT)
    data: list[Datum] = [
        datum(
            [rng.randrange(FIRST_ID, VOCABULARY) for _ in range(TOKENS)],
            mask,
            advantages=[rng.gauss(0, 1) * each for each in mask],
            sampling_logprobs=[-rng.expovariate(1.0) * each for each in mask],
        )
        for _ in range(SEQUENCES)
    ]
    return ForwardBackward(data, PPO())


def _large(rng: Random) -> Any:
    """A call that has the size of a burst's requests in JSON, with as few tokens as that can have."""

    def of(sequences: int) -> Any:
        length, data = 256, []
        for _ in range(sequences):
            mask = np.array([0] + [1] * (length - 1), np.float32)
            streams = {f"stream_{name}": np.array([rng.gauss(0, 1) for _ in mask], np.float32) for name in "abcd"}
            tokens = np.array([rng.randrange(2, 5) for _ in mask], np.int32)
            data.append(Datum(tokens, mask, streams))
        return call_tree(Forward(data, CausalLM()))

    share = len(_json(of(4))) / 4
    return of(round(REQUEST_MB * 1e6 / share))


def _json(tree: Any) -> bytes:
    return json.dumps(plain(tree), separators=(",", ":")).encode()


def _show(
    overheads: dict[str, Any],
    sizes: dict[str, float],
    pipelining: dict[str, float],
    draws: dict[str, Any],
    burst: dict[str, Any],
) -> None:
    rows: list[Sequence[str]] = []
    for wire, found in overheads.items():
        for verb, one in found.items():
            rows.append([f"{verb} in {wire}: server's own time", f"{one['overhead_ms']['median']:.2f} ms"])
            processor = one["overhead_processor_ms"]["median"]
            rows.append([f"{verb} in {wire}: of that the processor's", f"{processor:.2f} ms"])
            rows.append([f"{verb} in {wire}: as the client sees it", f"{one['client_ms']['median']:.2f} ms"])
    rows.append(["a batch of 128 in JSON", f"{sizes['json_bytes'] / 1e3:.0f} kB"])
    rows.append(["the same in binary", f"{sizes['binary_bytes'] / 1e3:.0f} kB"])
    rows.append(["the same in binary, deflated", f"{sizes['binary_deflated_bytes'] / 1e3:.0f} kB"])
    rows.append(["one by one", f"{pipelining['one_by_one_ms']:.1f} ms an operation"])
    rows.append(["pipelined", f"{pipelining['pipelined_ms']:.1f} ms an operation"])
    for name, found in (("draws at once", draws), ("large requests at once", burst)):
        rows.append([f"{name}: right answers", f"{found['right']} of {found['asked']}"])
        rows.append([f"{name}: memory beyond idle", f"{found['memory_mb']:.0f} MB"])
        rows.append([f"{name}: seconds", f"{found['seconds']:.1f}"])
    print(table(["", "found"], rows), file=sys.stderr)


if __name__ == "__main__":
    main(ROW, measured)
