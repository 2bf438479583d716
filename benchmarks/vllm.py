"""Samplers that are real servers of vLLM: ``python -m benchmarks.vllm --vllm PATH``.

Starts ``vllm serve`` on a small model of random weights, once for adapters and once for whole weights, and has Fettle
draw from it while the policy learns. Prints JSON: how far the servers' log-probabilities are from the trainer's, after
updates of the weights and for each way of drawing; whether draws repeat; what updates cost; and what becomes of a
server that is killed and begins anew.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks.machine import described, load
from benchmarks.processes import Server, free_port
from fettle.cluster.beside import SampledBeside
from fettle.cluster.parity import Parity
from fettle.cluster.pool import Pool
from fettle.cluster.vllm import VLLMSeat
from fettle.config import AdamW, CausalLM, LocalEngine, LoRA, PolicySpec, SamplingParams, TinyModel
from fettle.engine.base import SampleRequest
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.types import Completion, datum

KINDS: Mapping[str, tuple[Mapping[str, str], Sequence[str], LoRA | None]] = {
    "adapters": (
        {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"},
        ("--enable-lora", "--max-lora-rank", "16", "--max-loras", "2"),
        LoRA(rank=4),
    ),
    "whole weights": ({"VLLM_SERVER_DEV_MODE": "1"}, (), None),
}
"""What a server is started with, as ``docs/cluster.md`` says, and what is trained."""
PATIENCE = 900.0
"""Seconds that a server may take to begin: on a busy machine, minutes."""
ALWAYS = ("--logprobs-mode", "processed_logprobs", "--enforce-eager", "--max-num-seqs", "64")
WAYS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "temperature 2": {"temperature": 2.0},
    "top-k 5 at 0.7": {"temperature": 0.7, "top_k": 5},
    "likeliest": {"temperature": 0.0},
}
DATA = [datum([5, 9, 41, 7, 30, 12], [0, 1, 1, 1, 1, 1], weights=[1.0] * 6)]


def untied(folder: Path) -> str:
    """A small model with a head of its own, of a shape that vLLM's kernels take."""
    shape = TinyModel(hidden=128, layers=2, heads=2, context=256)
    tied = make_tiny_model(shape, folder / "tied", texts=["one two three four"] * 9)
    model = AutoModelForCausalLM.from_pretrained(tied, dtype=torch.float32)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0))
    shutil.copytree(tied, folder / "model")
    model.save_pretrained(folder / "model")
    return str(folder / "model")


def served(vllm: str, model: str, kind: str, *, dtype: str, more: Sequence[str], log: Path) -> tuple[Server, str]:
    """A server of one kind, not yet started, and its address."""
    environment, arguments, _ = KINDS[kind]
    port = free_port()
    command = [vllm, "serve", model, "--host", "127.0.0.1", "--port", str(port), "--dtype", dtype]
    url = f"http://127.0.0.1:{port}"
    ready = f"{url}/health"
    return Server([*command, *ALWAYS, *arguments, *more], ready, log=log, environment=environment), url


def learned(backend: SampledBeside, steps: int) -> str:
    """The weights after so many steps more."""
    for _ in range(steps):
        backend.forward_backward("p", DATA, CausalLM())
        backend.optim_step("p", AdamW(learning_rate=0.02))
    return backend.pin("p")[0]


def held(backend: SampledBeside, pin: str) -> dict[str, dict[str, Any]]:
    """For each way of drawing, how far log-probabilities are from what the trainer's own distribution gives.

    One request after the other: vLLM 0.32.0 for CPUs ends when it scores for one and draws for another from adapters.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, way in WAYS.items():
        top = way.get("top_k", 0)
        params = SamplingParams(max_tokens=16, seed=7, end_tokens=False, top_logprobs=top, **way)
        requests = [SampleRequest([3 + i, 9], 2, params) for i in range(4)]
        drawn, again = ([backend.sample([pin], [each])[0] for each in requests] for _ in range(2))
        gaps = [
            gap
            for request, completions in zip(requests, drawn, strict=True)
            for completion in completions
            for gap in apart(backend, pin, request, completion)
        ]
        same = [
            one.tokens == other.tokens
            for ones, others in zip(drawn, again, strict=True)
            for one, other in zip(ones, others, strict=True)
        ]
        found[name] = {
            "mean_apart": float(f"{np.mean(gaps):.3g}"),
            "most_apart": float(f"{np.max(gaps):.3g}"),
            "tokens_compared": len(gaps),
            "drawn_again_alike": f"{sum(same)} of {len(same)}",
        }
    return found


def apart(backend: SampledBeside, pin: str, request: SampleRequest, completion: Completion) -> list[float]:
    """Differences of log-probabilities, token by token; of the likeliest k, the trainer's are added up over those."""
    params, sequence, begin = request.params, [*request.prompt, *completion.tokens], len(request.prompt)
    heat = params.temperature or 1.0
    own = backend.logprobs(pin, [sequence], temperature=1.0 if params.top_k else heat)[0][begin:]
    if params.top_k:
        assert completion.top is not None, "asked for"
        kept = np.array([[logprob for _, logprob in place[: params.top_k]] for place in completion.top])
        own = own / heat - np.log(np.exp(kept / heat).sum(-1))
    return [abs(float(a - b)) for a, b in zip(own, completion.logprobs, strict=True)]


def measured(server: Server, url: str, model: str, lora: LoRA | None, *, dtype: str, folder: Path) -> dict[str, Any]:
    """A policy that learns, and is drawn from by the server: at first, after updates, and after the server's death."""
    seat = VLLMSeat(url, key=None, silent_seconds=10)
    seat.begin(PATIENCE)
    backend = SampledBeside(LocalBackend(LocalEngine(), checkpoints=folder), Pool([seat], look=0.2), Parity(0.05))
    backend.create_policy("p", PolicySpec.model_validate({"model": model, "lora": lora, "precision": dtype}))
    updates, pin = [], learned(backend, 0)
    for _ in range(3):
        backend.unpin(pin)
        pin = learned(backend, 2)
        told = backend.statistics()
        updates.append({name: float(f"{told[name]:.3g}") for name in ("parity/mean", "parity/max", "sync/seconds")})
    ways = held(backend, pin)
    long = [SampleRequest([3 + i, 9], 8, SamplingParams(max_tokens=32, end_tokens=False)) for i in range(4)]
    started = time.perf_counter()
    backend.sample([pin] * 4, long)
    rate = round(4 * 8 * 32 / (time.perf_counter() - started), 1)
    server.kill()
    server.spawn()
    while not seat.alive():
        time.sleep(1)
    backend.sample([pin], long[:1])
    forgotten = backend.statistics()
    pin = learned(backend, 1)
    backend.sample([pin], long[:1])
    told = backend.statistics()
    backend.close()
    return {
        "updates": updates,
        "ways": ways,
        "tokens_per_second": rate,
        "killed_and_begun_anew": {
            "lost": forgotten["samplers/lost"],
            "drawn_by_trainer": forgotten["samplers/by_trainer"],
            "present_after_next_update": told["samplers/present"],
            "drawn_by_trainer_since": told["samplers/by_trainer"] - forgotten["samplers/by_trainer"],
            "parity/mean": float(f"{told['parity/mean']:.3g}"),
        },
    }


def main() -> None:
    """Run both kinds, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vllm", description=__doc__)
    parser.add_argument("--vllm", default="vllm", help="the command, where it is not on the path")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of server and trainer")
    parser.add_argument("more", nargs="*", help="after --: more arguments of vllm serve")
    asked = parser.parse_args()
    vllm = shutil.which(asked.vllm)
    if vllm is None:
        raise SystemExit(f"there is no {asked.vllm}: say with --vllm where vLLM's command is")
    version = subprocess.run([vllm, "--version"], check=True, capture_output=True, text=True).stdout.split()[-1]
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = untied(folder)
        for kind, (_, _, lora) in KINDS.items():
            place = folder / kind.replace(" ", "-")
            server, url = served(vllm, model, kind, dtype=asked.dtype, more=asked.more, log=place.with_suffix(".log"))
            server.spawn()
            try:
                found[kind] = measured(server, url, model, lora, dtype=asked.dtype, folder=place)
            finally:
                server.stop()
    told = {"vllm": version, "dtype": asked.dtype, **found}
    print(json.dumps({**told, "load_after": load(), "machine": described()}, indent=1))


if __name__ == "__main__":
    main()
