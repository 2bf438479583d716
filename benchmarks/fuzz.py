"""Bad input: requests made at random, of which none may be answered by a 500 or by nothing.

``python -m benchmarks.fuzz --requests 20000``. Half of them are made by schemathesis from the service's own OpenAPI
document. Of the rest, half are messages of the binary protocol, sound ones and such as are filled at random, of which
one in two is damaged afterwards; half are frames of ours and JSON, damaged in the same way.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from benchmarks import models
from benchmarks.harness import Outcome, Row, Settings, main
from benchmarks.machine import Floor
from benchmarks.served import Service, Tenant
from benchmarks.service import gradient
from benchmarks.tables import table
from fettle.calls import call_tree
from fettle.frames import MEDIA_TYPE, packed, plain
from fettle.service.faces.tinker.tinker_wire_pb2 import DTYPE_FLOAT32, DTYPE_INT64, ForwardBackwardRequest

ROW = Row(
    name="fuzz",
    work="requests made at random that were answered by a 500, or by nothing",
    peer="none: a bound",
    target=0.0,
    better="lower",
    unit="",
)
REQUESTS, QUICK_REQUESTS = 20_000, 200
WORDS = ("target_tokens", "weights", "logprobs", "advantages", "cross_entropy", "ppo", "importance_sampling", "")
NUMBERS = (0, 1, -1, 2, 7, 511, 512, 2**31 - 1, -(2**31), 2**63 - 1)
REALS = (0.0, 1.0, -1.0, 0.2, 1e300, float("nan"), float("inf"))
LIKELY = 0.6
"""How often a field is filled in."""
DEEPEST = 5


def measured(settings: Settings, floor: Floor, *, requests: int | None = None) -> Outcome:
    """The row."""
    count = requests if requests is not None else (QUICK_REQUESTS if settings.quick else REQUESTS)
    with tempfile.TemporaryDirectory() as name:
        model = models.folder("tiny", ends=None)
        with Service(model, Path(name), threads=settings.threads) as service:
            tenant = service.tenant("fuzz")
            found = {
                "protobuf": damaged_messages(tenant, count // 4, seed=0),
                "frames and JSON": damaged_calls(tenant, count // 4, seed=1),
                "from the OpenAPI document": from_document(tenant, count // 2, Path(name)),
            }
    faults = sum(number for answers in found.values() for status, number in answers.items() if is_fault(status))
    rows = [[kind, str(status), str(n)] for kind, answers in found.items() for status, n in sorted(answers.items())]
    print(table(["requests", "answer", "times"], rows), file=sys.stderr)
    told = {kind: {str(status): number for status, number in answers.items()} for kind, answers in found.items()}
    asked = sum(number for answers in found.values() for number in answers.values())
    return Outcome(float(faults), {"requests": asked, "answers": told}, {}, further={"enough": asked >= count})


def is_fault(status: int) -> bool:
    """Whether an answer says that nobody foresaw the request; 0 is none at all."""
    return status == 0 or status == httpx.codes.INTERNAL_SERVER_ERROR


def damaged_messages(tenant: Tenant, count: int, *, seed: int) -> Counter[int]:
    """How often which status answered messages of the binary protocol, filled and damaged at random."""
    rng = Random(seed)
    session = tenant.asks("POST", "/api/v1/create_session", {"tags": [], "sdk_version": "0.38.0"})["session_id"]
    made = {"session_id": session, "model_seq_id": 0, "base_model": tenant.model, "lora_config": {"rank": 4}}
    tenant.asks("POST", "/api/v1/create_model", made)

    def body(number: int) -> bytes:
        message = (sound if rng.random() < 0.5 else filled)(rng)
        message.model_id = f"{session}:train:0" if rng.random() < 0.9 else "nobody"
        message.seq_id = number + 1
        said: bytes = message.SerializeToString()
        return damaged(said, rng)

    return _sent(tenant, "/api/v1/forward_backward", {"Content-Type": "application/x-protobuf"}, body, count)


def damaged_calls(tenant: Tenant, count: int, *, seed: int) -> Counter[int]:
    """The same of our own operations, half as frames and half as JSON."""
    rng, run = Random(seed), tenant.run()
    tree = {"incarnation": 0, "seq": 0, "call": call_tree(gradient(0))}
    frame, text = packed(tree), json.dumps(plain(tree)).encode()
    path = f"/v1/runs/{run}/operations"
    found = _sent(tenant, path, {"Content-Type": MEDIA_TYPE}, lambda _: damaged(frame, rng, always=True), count // 2)
    return found + _sent(
        tenant,
        path,
        {"Content-Type": "application/json"},
        lambda _: damaged(text, rng, always=True),
        count - count // 2,
    )


def from_document(tenant: Tenant, count: int, folder: Path) -> Counter[int]:
    """The same of what schemathesis makes of the OpenAPI document."""
    document = tenant.asks("GET", "/openapi.json")
    operations = sum(len(verbs) for verbs in document["paths"].values())
    events = folder / "events.ndjson"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{tenant.url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {tenant.key}", "--checks", "not_a_server_error"]
    command += ["--phases", "fuzzing", "--continue-on-failure", "--max-examples", str(-(-count // operations) + 1)]
    command += ["--report", "ndjson", "--report-ndjson-path", str(events), "--seed", "0", "--no-color"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return _statuses(events)


def _statuses(events: Path) -> Counter[int]:
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

    for line in events.read_text().splitlines():
        search(json.loads(line))
    return found


def _sent(tenant: Tenant, path: str, headers: dict[str, str], body: Callable[[int], bytes], count: int) -> Counter[int]:
    found: Counter[int] = Counter()
    with httpx.Client(base_url=tenant.url, headers={"Authorization": f"Bearer {tenant.key}", **headers}) as http:
        for number in range(count):
            try:
                status = http.post(path, content=body(number), timeout=60).status_code
            except httpx.TransportError:
                status = 0
            found[status] += 1
    return found


def sound(rng: Random) -> ForwardBackwardRequest:
    """A batch that can be trained on."""
    message = ForwardBackwardRequest(loss_fn="cross_entropy")
    for _ in range(2):
        length, datum = rng.randint(2, 16), message.data.add()
        tokens = np.array([rng.randrange(5, 500) for _ in range(length)])
        datum.model_input.add().encoded_text.tokens = tokens.astype("<i4").tobytes()
        targets, weights = datum.loss_fn_inputs["target_tokens"], datum.loss_fn_inputs["weights"]
        targets.dense, targets.dtype = tokens.astype("<i8").tobytes(), DTYPE_INT64
        weights.dense, weights.dtype = np.ones(length, "<f4").tobytes(), DTYPE_FLOAT32
        targets.shape.append(length)
        weights.shape.append(length)
    return message


def filled(rng: Random) -> ForwardBackwardRequest:
    """A message with something of everything in it."""
    message = ForwardBackwardRequest()
    fill(message, rng)
    return message


def fill(message: Message, rng: Random, depth: int = 0) -> None:
    """Give a message's fields, and those of the messages in it, values at random."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() > LIKELY or depth > DEEPEST:
            continue
        if field.is_repeated:
            for _ in range(rng.randrange(4)):
                _add(getattr(message, field.name), field, rng, depth)
        elif field.message_type is not None:
            fill(getattr(message, field.name), rng, depth + 1)
        else:
            setattr(message, field.name, value(field, rng))


def _add(container: Any, field: Any, rng: Random, depth: int) -> None:
    """One more element of a repeated field or a map."""
    kind = field.message_type
    if kind is None:
        container.append(value(field, rng))
    elif not kind.GetOptions().map_entry:
        fill(container.add(), rng, depth + 1)
    else:
        inner = kind.fields_by_name["value"]
        key = value(kind.fields_by_name["key"], rng)
        if inner.message_type is not None:
            fill(container[key], rng, depth + 1)
        else:
            container[key] = value(inner, rng)


def value(field: Any, rng: Random) -> Any:
    """Something that a field can hold."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING and field.type == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(rng.choice((0, 1, 3, 4, 8, 32, 64)))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return rng.choice(WORDS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.randrange(len(field.enum_type.values))
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return rng.choice(REALS)
    bits = 32 if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 64
    signed = kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return min(max(rng.choice(NUMBERS), low), high)


def damaged(said: bytes, rng: Random, *, always: bool = False) -> bytes:
    """Half of the time, and always if asked, with a few bytes changed, cut off, put in or repeated."""
    if not always and rng.random() < 0.5:
        return said
    found = bytearray(said)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(found) + 1)
        kind = rng.randrange(4)
        if kind == 0 and place < len(found):
            found[place] = rng.randrange(256)
        elif kind == 1:
            del found[place:]
        elif kind == 2:
            found[place:place] = rng.randbytes(rng.randint(1, 8))
        else:
            found += found[place : place + 64]
    return bytes(found)


if __name__ == "__main__":
    main(ROW, measured, requests=f"how many ({REQUESTS})")
