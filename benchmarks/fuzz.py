"""Bad input: requests made at random, of which none may be answered by a 500, by nothing, or by a dead server.

``python -m benchmarks.fuzz --requests 20000`` sends sound requests of every operation (our own, as JSON and as frames;
OpenAI's; Tinker's, as JSON and as protobuf), nearly each made wrong in its types, its structure or its bytes. A quarter
are made by schemathesis from the service's own OpenAPI document. What is taken in and computed later is asked for too.

Request N of a seed is always the same; a fault is told with its number, and ``--seed SEED --number N`` sends that one
again, to a fresh service, and shows it with its answer. Where it needs what stood before it, ``--first`` and
``--requests`` send a range again.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import httpx

from benchmarks.harness import Outcome, Row, Settings, main
from benchmarks.machine import Floor
from benchmarks.messages import filled
from benchmarks.messages import sound as sound_message
from benchmarks.mutations import damaged, mutated, written
from benchmarks.requests import JSON, World, operations, sound, world
from benchmarks.served import Service, Tenant
from benchmarks.tables import table
from fettle.config import TinyModel
from fettle.engine.local import make_tiny_model
from fettle.errors import DataError
from fettle.frames import MEDIA_TYPE, packed

ROW = Row(
    name="fuzz",
    work="requests made at random that were answered by a 500, by nothing, or by a dead server",
    peer="none: a bound",
    target=0.0,
    better="lower",
    unit="",
)
REQUESTS, QUICK_REQUESTS = 20_000, 400
FROM_DOCUMENT = 1 / 4
"""How much of them schemathesis makes."""
WORLD = 100
"""So many requests are about the same things."""
AT_ONCE = 4
POLL = "/api/v1/retrieve_futures"
"""It may wait for half a minute where nothing says for how long, and so is left out of what schemathesis makes."""
SETTLED_S = 30
"""How long what was taken in may take, once its run is completed and nothing is in its way."""
MESSAGES = 0.2
"""How many are messages of the binary protocol."""
BINARY = "application/x-protobuf"
UNFORESEEN = ('"code":"internal"', "the engine failed at this", "the engine failed: ")
"""Words of an answer, whatever its status, that say the same as a 500."""
ODD_WORDS = ("", "-1", "nan", "1e309", "9" * 400, "true", "..", "a/b", "\0", "\u202e", "x" * 3000, "%", "?", "#")


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent."""

    face: str
    method: str
    url: str
    headers: dict[str, str]
    content: bytes


@dataclass(slots=True)
class Found:
    """How requests were answered."""

    answers: dict[str, Counter[int]] = field(default_factory=dict)
    """By face, and by status; 0 is no answer."""
    faults: list[str] = field(default_factory=list)

    def count(self, face: str, status: int, times: int = 1) -> None:
        """One answer more, or several."""
        self.answers.setdefault(face, Counter())[status] += times

    def join(self, other: "Found") -> None:
        """With what others found."""
        for face, statuses in other.answers.items():
            for status, times in statuses.items():
                self.count(face, status, times)
        self.faults += other.faults

    @property
    def asked(self) -> int:
        """How many requests there were."""
        return sum(sum(statuses.values()) for statuses in self.answers.values())


def measured(
    settings: Settings,
    floor: Floor,
    *,
    requests: int | None = None,
    seed: int = 0,
    first: int = 0,
    number: int | None = None,
) -> Outcome:
    """The row; or one request of it, which is shown."""
    count = requests if requests is not None else (QUICK_REQUESTS if settings.quick else REQUESTS)
    own = 1 if number is not None else count - round(count * FROM_DOCUMENT)
    begin = first if number is None else number
    with tempfile.TemporaryDirectory() as name:
        tiny = TinyModel(hidden=32, layers=2, heads=2, context=64)
        model = make_tiny_model(tiny, Path(name) / "model", texts=["one two three 1 2 3 + - ="])
        with Service(model, Path(name), threads=settings.threads) as service:
            tenants = [service.tenant(f"fuzz-{place}") for place in range(AT_ONCE)]
            found = from_operations(tenants, range(begin, begin + own), seed=seed, show=number is not None)
            if number is None and count > own:
                found.join(from_document(tenants[0], count - own, Path(name), seed=seed))
            alive = is_alive(tenants[0])
    return _outcome(found, count=count if number is None else 1, seed=seed, alive=alive)


def _outcome(found: Found, *, count: int, seed: int, alive: bool) -> Outcome:
    classes = {face: by_class(statuses) for face, statuses in sorted(found.answers.items())}
    names = sorted({name for told in classes.values() for name in told})
    rows = [[face, *(str(told.get(name, 0)) for name in names)] for face, told in classes.items()]
    print(table(["requests", *names], rows), file=sys.stderr)
    for fault in found.faults:
        print(fault, file=sys.stderr)
    told = {face: {str(status): n for status, n in sorted(each.items())} for face, each in found.answers.items()}
    return Outcome(
        float(len(found.faults) + (not alive)),
        {"requests": found.asked, "seed": seed, "classes": classes, "answers": told},
        {},
        notes=[fault[:300] for fault in found.faults[:10]],
        further={"enough": found.asked >= count, "the server is ready at the end": alive},
    )


def by_class(statuses: Counter[int]) -> dict[str, int]:
    """Answers by the class of their status."""
    found: Counter[str] = Counter()
    for status, times in statuses.items():
        found[f"{status // 100}xx" if status else "none"] += times
    return dict(sorted(found.items()))


def is_fault(status: int) -> bool:
    """Whether an answer says that nobody foresaw the request; 0 is none at all. 503 says that there is no room."""
    return status == 0 or (status >= 500 and status != httpx.codes.SERVICE_UNAVAILABLE)


def is_alive(tenant: Tenant) -> bool:
    """Whether the server is there and takes work in."""
    try:
        return tenant.tries("GET", "/readyz").is_success
    except httpx.TransportError:
        return False


def from_operations(tenants: Sequence[Tenant], numbers: range, *, seed: int, show: bool = False) -> Found:
    """How requests of these numbers were answered, sent for as many tenants at once."""
    blocks = [numbers[place : place + WORLD] for place in range(0, len(numbers), WORLD)]
    listed = operations(tenants[0].asks("GET", "/openapi.json"))
    found = Found()

    def turn(tenant: Tenant, own: Iterable[range]) -> Found:
        mine = Found()
        for block in own:
            mine.join(Block(tenant, listed, seed, show=show).found(block))
        return mine

    with ThreadPoolExecutor(len(tenants)) as pool:
        turns = [pool.submit(turn, tenant, blocks[at :: len(tenants)]) for at, tenant in enumerate(tenants)]
        for each in turns:
            found.join(each.result())
    return found


class Block:
    """Requests that are about the same things."""

    def __init__(self, tenant: Tenant, listed: list[Any], seed: int, *, show: bool = False) -> None:
        self._tenant = tenant
        self._listed = listed
        self._seed = seed
        self._show = show
        self._found = Found()
        self._promised: list[tuple[int, Request]] = []

    def found(self, numbers: range) -> Found:
        """How they were answered, and what those came to that were taken in."""
        there = world(self._tenant)
        for number in numbers:
            asked = request(there, self._listed, Random(f"fuzz/{self._seed}/{number}"))
            self._send(there, number, asked)
        there.close()
        for number, asked in self._promised:
            self._send(there, number, asked, promises=False)
        return self._found

    def _send(self, there: World, number: int, asked: Request, *, promises: bool = True) -> None:
        started = time.perf_counter()
        try:
            answer = self._tenant.tries(asked.method, asked.url, content=asked.content, headers=asked.headers)
            status, words = answer.status_code, answer.text
        except httpx.TransportError as error:
            status, words = 0, f"{type(error).__name__} after {time.perf_counter() - started:.1f} s"
        self._found.count(asked.face, status)
        if self._show:
            print(f"{shown(asked)}\n-> {status} {words[:2000]}", file=sys.stderr)
        unforeseen = any(word in words for word in UNFORESEEN)
        if is_fault(status) or unforeseen:
            self._found.faults.append(
                f"request {number} of seed {self._seed} (again: python -m benchmarks.fuzz --seed {self._seed} "
                f"--number {number}): {shown(asked)[:600]} -> {status} {words[:600]}"
            )
        elif promises and 200 <= status < 300:
            self._keep(there, number, asked, words)

    def _keep(self, there: World, number: int, asked: Request, words: str) -> None:
        """Remember what an answer promises."""
        if asked.url.partition("?")[0].endswith("/operations"):
            there.taken += 1
        try:
            told = json.loads(words)
        except ValueError:
            return
        if not isinstance(told, dict):
            return
        if told.get("status") == "pending" and isinstance(told.get("id"), str):
            url = f"/v1/futures/{quote(told['id'], safe='')}?wait={SETTLED_S}"
            self._promised.append((number, Request("what was taken in", "GET", url, {}, b"")))
        elif isinstance(told.get("request_id"), str):
            content = json.dumps({"request_id": told["request_id"]}).encode()
            url = "/api/v1/retrieve_future"
            self._promised.append((number, Request("what was taken in", "POST", url, {"Content-Type": JSON}, content)))


def request(there: World, listed: list[Any], rng: Random) -> Request:
    """One that is nearly sound."""
    if rng.random() < MESSAGES:
        return _message(there, rng)
    one = sound(there, listed, rng)
    names = {name: quote(value, safe="") for name, value in one.names.items()}
    query = dict(one.query)
    if rng.random() < 0.1:
        names[rng.choice(list(names))] = quote(rng.choice(ODD_WORDS), safe="")
    if rng.random() < 0.1:
        query[rng.choice([*query, "wait", "limit"])] = rng.choice(ODD_WORDS)
    path = re.sub(r"{(\w+)(?::\w+)?}", lambda found: names[found[1]], one.path)
    url = path + "?" * bool(query) + "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    if one.body is None and rng.random() < 0.8:
        return Request(one.face, one.method, url, {}, b"")
    tree = one.body if one.body is not None else {}
    if rng.random() < 0.85:
        tree = mutated(tree, rng)
    kind, content = _said(tree, rng, frames=one.face == "native")
    if rng.random() < 0.1:
        content = damaged(content, rng)
    if rng.random() < 0.03:
        kind = rng.choice((JSON, MEDIA_TYPE, BINARY, "text/plain", ""))
    return Request(one.face, one.method, url, {"Content-Type": kind}, content)


def _said(tree: Any, rng: Random, *, frames: bool) -> tuple[str, bytes]:
    """A body as JSON, or, where that is understood, as a frame."""
    if frames and rng.random() < 0.3:
        try:
            return MEDIA_TYPE, packed(tree)
        except DataError:  # a frame cannot say it: JSON can
            return JSON, written(tree)
    return JSON, written(tree)


def _message(there: World, rng: Random) -> Request:
    """A message of the binary protocol."""
    message = (sound_message if rng.random() < 0.5 else filled)(rng)
    message.model_id = f"{there.names['session']}:train:0" if rng.random() < 0.9 else "nobody"
    if rng.random() < 0.8:
        message.ClearField("seq_id")
    content: bytes = message.SerializeToString()
    if rng.random() < 0.5:
        content = damaged(content, rng)
    return Request("tinker, protobuf", "POST", "/api/v1/forward_backward", {"Content-Type": BINARY}, content)


def shown(asked: Request) -> str:
    """A request for people."""
    kind = asked.headers.get("Content-Type", "")
    return f"{asked.method} {asked.url[:300]} {kind} {asked.content[:1000]!r}"


def from_document(tenant: Tenant, count: int, folder: Path, *, seed: int) -> Found:
    """What schemathesis found, with requests that it makes of the OpenAPI document."""
    document = tenant.asks("GET", "/openapi.json")
    listed = sum(len(verbs) for verbs in document["paths"].values())
    events = folder / "events.ndjson"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{tenant.url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {tenant.key}", "--checks", "not_a_server_error"]
    command += ["--exclude-path", POLL, "--request-timeout", "60"]
    command += ["--phases", "fuzzing", "--continue-on-failure", "--max-examples", str(-(-count // listed) + 1)]
    command += ["--report", "ndjson", "--report-ndjson-path", str(events), "--seed", str(seed), "--no-color"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = Found()
    for status, times in statuses(events).items():
        found.count("from the OpenAPI document", status, times)
    if done.returncode:
        again = f"st run --checks not_a_server_error --phases fuzzing --seed {seed} URL/openapi.json"
        words = (done.stdout + done.stderr).partition("= ERRORS =")[2] or done.stdout[-3000:] + done.stderr[-1000:]
        found.faults.append(f"schemathesis ended with {done.returncode} (again: {again}):\n{words[:3000]}")
    return found


def statuses(events: Path) -> Counter[int]:
    """Of all answers that a report holds."""
    found: Counter[int] = Counter()

    def search(tree: Any) -> None:
        if isinstance(tree, dict):
            if isinstance(tree.get("status_code"), int):
                found[tree["status_code"]] += 1
            for value in tree.values():
                search(value)
        elif isinstance(tree, list):
            for value in tree:
                search(value)

    if events.is_file():
        for line in events.read_text().splitlines():
            search(json.loads(line))
    return found


if __name__ == "__main__":
    told = main(
        ROW,
        measured,
        requests=f"how many ({REQUESTS})",
        seed="of the requests (0)",
        first="the number of the first of them (0)",
        number="of one request, which is sent alone and shown",
    )
    sys.exit(0 if told["met"] else 1)
