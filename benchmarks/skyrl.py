"""Fettle's service against SkyRL tx, the open server of the same protocol, each driven by the ``tinker`` client.

SkyRL tx 0.3.0 runs in an environment of its own, which is made on first use, and is spoken to by the SDK it was written
for. Both servers are up, one at a time is under load, and they take turns. Shapes are warmed up first, since the peer
compiles each. On the tiny model it is the polling of its queue that the peer's time consists of; on the larger one
computing prevails. What the ratio speaks of is the tiny model, training and sampling, whichever is less.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import models
from benchmarks.environments import environment
from benchmarks.figures import ratio, spread
from benchmarks.harness import CACHE, MARK, ROOT, Outcome, Row, Settings, interleaved, main
from benchmarks.machine import Floor
from benchmarks.processes import Server, free_port
from benchmarks.served import SERVED, Service
from benchmarks.tables import table

ROW = Row(
    name="skyrl",
    work="forward_backward + optim_step at 8 x 64 tokens and sampling 8 x 32, over HTTP with the tinker client",
    peer="skyrl-tx 0.3.0",
    target=3.0,
)
PEER = (
    ["torch==2.13.0"],
    ["skyrl-tx==0.3.0", "jax>=0.8,<1", "flax>=0.12.2", "optax>=0.2.5"],
    ["fastapi[standard]", "sqlmodel", "sqlalchemy[asyncio]", "aiosqlite", "asyncpg", "psycopg2-binary"],
)
CLIENT = (["tinker==0.16.1"],)
RANK = 8
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "tiny: train 8 x 64": {"size": "tiny", "do": "train", "sequences": 8, "tokens": 64},
    "tiny: sample 8 x 32": {"size": "tiny", "do": "sample", "samples": 8, "tokens": 32},
    "small: train 16 x 256": {"size": "small", "do": "train", "sequences": 16, "tokens": 256},
    "small: sample 16 x 128": {"size": "small", "do": "sample", "samples": 16, "tokens": 128},
}
ROUNDS, QUICK_ROUNDS = 15, 3
LEAST_DRAWN = 0.5
"""Of the tokens asked for: of random weights, about one in the vocabulary's size ends a completion."""

Asks = Callable[[Mapping[str, Any]], dict[str, Any]]
"""One measurement of a side."""


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row: one pair of servers for each size, and rounds in which both sides do the same."""
    found: dict[str, dict[str, list[float]]] = {}
    rounds = QUICK_ROUNDS if settings.quick else ROUNDS
    for size in ("tiny", "small"):
        with ExitStack() as up:
            model = models.folder(size, ends=None)
            ours = up.enter_context(driver(sys.executable, *up.enter_context(ours_up(model, settings))))
            peer_python = environment("tinker-0.16.1", *CLIENT)
            peer = up.enter_context(driver(str(peer_python), *up.enter_context(peer_up(model, settings))))
            for name, shape in SHAPES.items():
                if shape["size"] == size:
                    found[name] = _in_turn(ours, peer, shape, rounds)
    ratios = {name: ratio(sides["peer"], sides["ours"]) for name, sides in found.items()}
    _show(found, ratios)
    return Outcome(
        min(found_ratio for name, found_ratio in ratios.items() if name.startswith("tiny")),
        {name: {"seconds": spread(sides["ours"])} for name, sides in found.items()},
        {name: {"seconds": spread(sides["peer"])} for name, sides in found.items()},
        notes=[f"{name}: {found_ratio:.2f} times" for name, found_ratio in ratios.items()],
        further={f"{name}: 3 times": ratios[name] >= ROW.target for name in SHAPES if name.startswith("tiny")},
    )


@contextmanager
def ours_up(model: str, settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Fettle's server of a model: where it is, a key, and what the model is called there."""
    with (
        tempfile.TemporaryDirectory(dir=CACHE) as folder,  # on a disk, for both: /tmp may be memory
        Service(model, Path(folder), threads=settings.threads) as service,
    ):
        yield service.url, service.tenant("skyrl").key, SERVED


@contextmanager
def peer_up(model: str, settings: Settings) -> Iterator[tuple[str, str, str]]:
    """The peer's server of the same weights."""
    python = environment("skyrl-tx-0.3.0", *PEER)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        copied = as_older_transformers_read(model, folder / "model")
        port = free_port()
        command = [str(python), "-m", "tx.tinker.api", "--base-model", copied, "--host", "127.0.0.1"]
        command += ["--port", str(port), "--database-url", f"sqlite:///{folder}/peer.db"]
        command += ["--checkpoints-base", str(folder / "checkpoints")]
        command += ["--backend-config", json.dumps({"max_lora_adapters": 2, "max_lora_rank": RANK})]
        path = f"{without_uv(python, folder)}:{os.environ['PATH']}"
        url = f"http://127.0.0.1:{port}"
        server = Server(command, f"{url}/api/v1/healthz", log=folder / "log", environment={"PATH": path})
        server.start()
        try:
            yield url, "tml-benchmark", copied
        finally:
            server.stop()


def without_uv(python: Path, folder: Path) -> Path:
    """A folder with a ``uv`` that runs what it is told to in the environment that is there.

    The peer starts its engine by ``uv run --extra ... -m MODULE``, which would make another environment.
    """
    place = folder / "bin"
    place.mkdir()
    script = place / "uv"
    script.write_text(
        f'#!/bin/sh\nshift\nwhile [ "$1" = "--extra" ]; do shift 2; done\nexec "{python}" "$@"\n', encoding="utf-8"
    )
    script.chmod(0o755)
    return place


def as_older_transformers_read(model: str, place: Path) -> str:
    """The same weights, with their settings under the names that transformers 4 has for them."""
    shutil.copytree(model, place)
    settings = json.loads((place / "config.json").read_text())
    settings["rope_theta"] = settings.pop("rope_parameters")["rope_theta"]
    settings["torch_dtype"] = settings.pop("dtype", "float32")
    (place / "config.json").write_text(json.dumps(settings))
    tokenizer = json.loads((place / "tokenizer_config.json").read_text())
    (place / "tokenizer_config.json").write_text(
        json.dumps({**tokenizer, "tokenizer_class": "PreTrainedTokenizerFast"})
    )
    return str(place)


@contextmanager
def driver(python: str, url: str, key: str, model: str) -> Iterator[Asks]:
    """A client in its own environment; what is called asks it for one measurement."""
    command = [python, str(ROOT / "benchmarks" / "tinker_driver.py"), url, key, model, str(RANK)]
    # The SDK of another environment must not find the packages of this one.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean)
    assert process.stdin is not None
    assert process.stdout is not None
    asked, answered = process.stdin, process.stdout

    def answer() -> dict[str, Any]:
        for line in answered:
            if line.startswith(MARK):
                found: dict[str, Any] = json.loads(line.removeprefix(MARK))
                return found
        raise SystemExit(f"the client of {url} ended ({process.wait()})")

    def asks(shape: Mapping[str, Any]) -> dict[str, Any]:
        asked.write(json.dumps({name: value for name, value in shape.items() if name != "size"}) + "\n")
        asked.flush()
        return answer()

    try:
        answer()
        yield asks
    finally:
        asked.close()
        process.wait(60)


def _in_turn(ours: Asks, peer: Asks, shape: Mapping[str, Any], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side.

    Raises:
        SystemExit: one drew fewer tokens than asked for, beyond what an end by chance explains.
    """
    whole = shape.get("samples", 0) * shape["tokens"]

    def seconds(asks: Asks) -> float:
        told = asks(shape)
        if told.get("tokens", whole) < LEAST_DRAWN * whole:
            raise SystemExit(f"{told['tokens']} tokens were drawn, and {whole} asked for: {shape}")
        return float(told["seconds"])

    sides: dict[str, Callable[[], float]] = {"ours": lambda: seconds(ours), "peer": lambda: seconds(peer)}
    # A second warm-up: what the first compiled is kept by the kinds of arrays that the first call made.
    for call in sides.values():
        call()
    return interleaved(sides, rounds)


def _show(found: Mapping[str, Mapping[str, list[float]]], ratios: Mapping[str, float]) -> None:
    rows = [
        [name, *(f"{1e3 * statistics.median(sides[side]):.0f} ms" for side in ("ours", "peer")), f"{ratios[name]:.1f}"]
        for name, sides in found.items()
    ]
    print(table(["work", "fettle", "skyrl-tx 0.3.0", "ratio"], rows), file=sys.stderr)


if __name__ == "__main__":
    main(ROW, measured)
