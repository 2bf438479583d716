"""Three policies trained at once through a broker that is killed with SIGKILL at random moments.

Each process goes on where the journal ends, and sends once more the last of what was sent before, as clients do that
saw no answer. Everything is imported once and each process is a fork. Prints one JSON line.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from fettle.broker import Broker, Promise
from fettle.calls import Call, Create, Forward, ForwardBackward, OptimStep, Pin, Restore, Save, Undo
from fettle.config import PPO, AdamW, CausalLM, JournalSettings, LocalEngine, LoRA, PolicySpec, SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local import LocalBackend
from fettle.errors import FettleError
from fettle.types import Datum, datum

SETTINGS = JournalSettings(snapshot_operations=9, snapshot_seconds=0.5, segment_mib=1)
ADAM = AdamW(learning_rate=0.01)
ROUNDS = 10
REPEATED = 6
"""Operations sent once more after a restart."""


def specs(model: str) -> dict[str, PolicySpec]:
    return {
        "lora": PolicySpec(model=model, lora=LoRA(rank=4, dropout=0.2), seed=1),
        "full": PolicySpec(model=model, seed=2),
        "critic": PolicySpec(model=model, lora=LoRA(rank=2), head="value", seed=3),
    }


def batch(rng: random.Random, tokens: int = 12) -> list[Datum]:
    rows = [[rng.randrange(4, 200) for _ in range(tokens)] for _ in range(3)]
    mask = [0] + [1] * (tokens - 1)
    extra = {"sampling_logprobs": [-1.0] * tokens, "advantages": [0.5] * tokens}
    return [datum(row, mask, **extra) for row in rows]


def program(policy: str, checkpoints: Path) -> list[Call]:
    """What is done with a policy: all that changes one, refused calls among it."""
    rng, calls = random.Random(f"program/{policy}"), []
    for step in range(ROUNDS):
        calls += [ForwardBackward(batch(rng), CausalLM()), ForwardBackward(batch(rng), PPO())]
        if step % 3 == 1:
            refused = datum([1, 10**6], [0, 1])
            calls.append(ForwardBackward([refused], CausalLM()))
        calls += [OptimStep(ADAM, undoable=step % 4 == 2), Pin()]
        if step % 4 == 2:
            calls.append(Undo())
        if step % 4 == 3:
            calls.append(Save(f"{policy}-{step}"))
        if step == 8:
            calls.append(Restore(str(checkpoints / f"{policy}-3"), optimizer=True))
        calls.append(Forward(batch(rng), CausalLM()))
    return [*calls, Save(f"{policy}-last")]


async def figures(promise: Promise) -> object:
    """What an answer says, without the time it took."""
    try:
        answer = await promise.result()
    except FettleError as error:
        return [error.code, error.message]
    for name in ("loss", "grad_norm", "digest"):
        if hasattr(answer, name):
            return getattr(answer, name)
    return answer


async def trained(folder: Path, model: str) -> None:
    """Go on with the three programs, and write their answers down when all are done."""
    backend = LocalBackend(LocalEngine(threads=1), checkpoints=folder / "checkpoints")
    broker = await Broker.recovered(backend, folder / "journal", SETTINGS)
    acknowledged = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    lost = lost_ones(folder, broker)
    promises: dict[str, list[Promise]] = {name: [] for name in specs(model)}

    async def client(name: str, spec: PolicySpec) -> None:
        await broker.open(name, Create(spec)).durable()
        calls = program(name, folder / "checkpoints")
        first = max(0, broker.policies()[name].next_seq - REPEATED)
        promises[name] = [broker.promise(f"{name}.0.{seq}") for seq in range(first)]
        for seq in range(first, len(calls)):
            promise = broker.submit(name, 0, seq, calls[seq])
            promises[name].append(promise)
            await promise.durable()
            os.write(acknowledged, f"{name} {seq}\n".encode())
            if seq % 5 == 4:
                await promises[name][seq - 3].settled()

    await asyncio.gather(*(client(name, spec) for name, spec in specs(model).items()))
    answers = {name: [await figures(promise) for promise in each] for name, each in promises.items()}
    request = SampleRequest([5, 9, 41], 2, SamplingParams(max_tokens=6, seed=3))
    pin = next(each.id for each in promises["lora"] if each.kind == "pin")
    drawn = [completion.tokens for completion in await broker.draw("drawn", pin, [request]).result()]
    (folder / "answers.json").write_text(json.dumps({"answers": answers, "drawn": drawn, "lost": lost}))


def lost_ones(folder: Path, broker: Broker) -> int:
    """How many operations were acknowledged that the broker does not know."""
    path = folder / "acknowledged"
    lines = path.read_text().splitlines() if path.is_file() else []
    known = {name: info.next_seq for name, info in broker.policies().items()}
    return sum(int(seq) >= known.get(name, 0) for name, seq in map(str.split, lines))


def started(folder: Path, model: str) -> int:
    """Go on in a child; returns its pid."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        asyncio.run(trained(folder, model))
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


def told(folder: Path) -> dict:
    """Without the folder, which stands in paths and messages."""
    return json.loads((folder / "answers.json").read_text().replace(str(folder), ""))


def main(model: str, scratch: Path, runs: int, kills: int) -> None:
    """Compare an undisturbed run with ``runs`` that are each killed up to ``kills`` times."""
    (scratch / "straight").mkdir(parents=True)
    began = time.monotonic()
    assert os.waitpid(started(scratch / "straight", model), 0)[1] == 0
    seconds = time.monotonic() - began
    straight = told(scratch / "straight")
    rng = random.Random("kills")
    outcomes = []
    for run in range(runs):
        folder = scratch / f"run-{run}"
        folder.mkdir()
        killed = 0
        for _ in range(kills):
            child = started(folder, model)
            time.sleep(seconds * rng.uniform(0.05, 0.7))
            os.kill(child, signal.SIGKILL)
            killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert os.waitpid(started(folder, model), 0)[1] == 0
        found = told(folder)
        same = {name: found[name] == straight[name] for name in ("answers", "drawn")}
        outcomes.append({"kills": killed, "lost": found["lost"], **same})
    sys.stdout.write(json.dumps({"seconds": round(seconds, 2), "runs": outcomes}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
