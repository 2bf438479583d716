"""A snapshot is everything: a policy made of it goes on to the same bits as one that was never disturbed."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fettle.config import PPO, AdamW, CausalLM, LocalEngine, LoRA, LossConfig, PolicySpec, SamplingParams, Value
from fettle.engine.base import SampleRequest
from fettle.engine.local import LocalBackend
from fettle.errors import CheckpointError, EngineError, NotFoundError, StorageError
from fettle.types import Datum, datum

ADAM = AdamW(learning_rate=0.02, weight_decay=0.1)
DROPOUT = LoRA(rank=4, dropout=0.3)
SPECS = {
    "adapter with dropout": (PolicySpec(model="", lora=DROPOUT, seed=3), PPO()),
    "whole weights": (PolicySpec(model=""), PPO()),
    "value head": (PolicySpec(model="", lora=DROPOUT, head="value"), Value()),
    "quantized base": (PolicySpec(model="", lora=DROPOUT, quantization="int8"), PPO()),
}


def batch(seed: int) -> list[Datum]:
    random = np.random.default_rng(seed)
    lengths = random.integers(4, 16, size=4).tolist()
    return [
        datum(
            random.integers(5, 300, n).tolist(),
            [0, *[1] * (n - 1)],
            sampling_logprobs=-random.random(n),
            advantages=random.normal(size=n),
            returns=random.normal(size=n),
            old_values=random.normal(size=n),
        )
        for n in lengths
    ]


def stepped(backend: LocalBackend, loss: LossConfig, seed: int, *, undoable: bool = False) -> None:
    backend.forward_backward("p", batch(seed), loss)
    backend.optim_step("p", ADAM, undoable=undoable)


def numbers(backend: LocalBackend, loss: LossConfig, pins: Sequence[str]) -> list[object]:
    """What a policy says and does from here on, in numbers that a changed bit shows in."""
    told: list[object] = []
    for seed in (7, 8):
        result = backend.forward_backward("p", batch(seed), loss)
        told += [result.loss, result.metrics, *(row.tolist() for row in [*result.logprobs, *result.values])]
    step = backend.optim_step("p", ADAM, undoable=True)
    told += [step.policy_version, step.grad_norm, backend.undo("p").policy_version]
    told.append([row.tolist() for row in backend.forward("p", batch(9), CausalLM()).logprobs])
    backend.pin("p", "now")
    for pin in [*pins, "now"]:
        request = SampleRequest([8, 9, 10], 3, SamplingParams(max_tokens=8, seed=5))
        told += [(c.tokens, c.logprobs, c.policy_version) for c in backend.sample([pin], [request])[0]]
        told.append([row.tolist() for row in backend.logprobs(pin, [[8, 9, 10, 11]], temperature=1.0)])
    return told


def fresh(backend: LocalBackend, loss: LossConfig) -> list[str]:
    return []


def between_steps(backend: LocalBackend, loss: LossConfig) -> list[str]:
    backend.pin("p", "run.0.0")
    stepped(backend, loss, 0)
    stepped(backend, loss, 1)
    return ["run.0.0"]


def in_the_middle_of_an_accumulation(backend: LocalBackend, loss: LossConfig) -> list[str]:
    stepped(backend, loss, 0)
    backend.forward_backward("p", batch(1), loss)
    backend.forward_backward("p", batch(2), loss)
    return []


def with_several_pins(backend: LocalBackend, loss: LossConfig) -> list[str]:
    backend.pin("p", "run.0.0")
    stepped(backend, loss, 0)
    backend.pin("p", "run.0.3")
    stepped(backend, loss, 1)
    names = ["run.0.0", "run.0.3", *(backend.pin("p")[0] for _ in range(2))]
    backend.unpin(names.pop())
    return names


MOMENTS = (fresh, between_steps, in_the_middle_of_an_accumulation, with_several_pins)


@pytest.mark.parametrize("until", MOMENTS, ids=lambda until: until.__name__)
@pytest.mark.parametrize("kind", SPECS)
def test_a_revived_policy_goes_on_to_the_same_bits(
    kind: str, until: Callable[[LocalBackend, LossConfig], list[str]], tiny: str, tmp_path: Path
) -> None:
    spec, loss = SPECS[kind]
    first, second = (LocalBackend(LocalEngine(), checkpoints=tmp_path) for _ in range(2))
    first.create_policy("p", spec.model_copy(update={"model": tiny}))
    pins = until(first, loss)
    first.snapshot("p", tmp_path / "snap")
    second.revive("p", tmp_path / "snap")
    assert numbers(second, loss, pins) == numbers(first, loss, pins)


@pytest.mark.parametrize("then", [None, 1])
def test_it_may_be_revived_where_sampling_has_a_thread_of_its_own(then: int | None, tiny: str, tmp_path: Path) -> None:
    spec, loss = SPECS["adapter with dropout"]
    beside = LocalEngine(sampling_threads=1)
    first = LocalBackend(beside, checkpoints=tmp_path)
    second = LocalBackend(LocalEngine(sampling_threads=then), checkpoints=tmp_path)
    first.create_policy("p", spec.model_copy(update={"model": tiny}))
    pins = with_several_pins(first, loss)
    first.snapshot("p", tmp_path / "snap")
    second.revive("p", tmp_path / "snap")
    assert numbers(second, loss, pins) == numbers(first, loss, pins)


@pytest.mark.parametrize("kind", ["adapter with dropout", "whole weights"])
@pytest.mark.parametrize("steps_before", [0, 1])
def test_a_step_can_be_undone_after_a_revival(kind: str, steps_before: int, tiny: str, tmp_path: Path) -> None:
    spec, loss = SPECS[kind]
    first, second = (LocalBackend(LocalEngine(), checkpoints=tmp_path) for _ in range(2))
    first.create_policy("p", spec.model_copy(update={"model": tiny}))
    for seed in range(steps_before):
        stepped(first, loss, seed)
    before = first.forward("p", batch(9), CausalLM()).loss
    stepped(first, loss, 5, undoable=True)
    first.snapshot("p", tmp_path / "snap")
    second.revive("p", tmp_path / "snap")
    assert second.forward("p", batch(9), CausalLM()).loss != before
    for backend in (first, second):
        backend.undo("p")
        assert backend.forward("p", batch(9), CausalLM()).loss == before
    assert numbers(second, loss, []) == numbers(first, loss, [])


def test_a_policy_loaded_from_a_checkpoint_is_revived_from_its_model(tiny: str, tmp_path: Path) -> None:
    first, second = (LocalBackend(LocalEngine(), checkpoints=tmp_path) for _ in range(2))
    first.create_policy("a", PolicySpec(model=tiny))
    first.forward_backward("a", batch(0), CausalLM())
    first.optim_step("a", ADAM)
    saved = first.save("a", "x", optimizer=True).result()
    first.load_policy("p", saved.path, optimizer=True)
    first.snapshot("p", tmp_path / "snap")
    second.revive("p", tmp_path / "snap")
    assert numbers(second, PPO(), []) == numbers(first, PPO(), [])


def test_a_policy_that_is_parked_comes_back_with_its_pins(tiny: str, tmp_path: Path) -> None:
    """Closing takes the pins along, and reviving brings them back by their names."""
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    backend.create_policy("p", PolicySpec(model=tiny, lora=DROPOUT))
    stepped(backend, PPO(), 0)
    name, version = backend.pin("p")
    request = [SampleRequest([8, 9], 1, SamplingParams(max_tokens=4))]
    before = backend.sample([name], request)[0][0]
    backend.snapshot("p", tmp_path / "snap")
    with pytest.raises(EngineError, match="there is a policy 'p' here: close it"):
        backend.revive("p", tmp_path / "snap")
    backend.close_policy("p")
    with pytest.raises(NotFoundError, match=r"was released"):
        backend.sample([name], request)
    backend.revive("p", tmp_path / "snap")
    after = backend.sample([name], request)[0][0]
    assert (after.tokens, after.logprobs) == (before.tokens, before.logprobs)
    assert backend.pin("p") != (name, version)  # names are not given twice


def test_a_snapshot_holds_the_adapter_and_not_its_base(tiny: str, tmp_path: Path) -> None:
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    backend.create_policy("p", PolicySpec(model=tiny, lora=LoRA(rank=1, targets=("q_proj",))))
    backend.snapshot("p", tmp_path / "snap")
    size = sum(path.stat().st_size for path in (tmp_path / "snap").iterdir())
    assert size < 0.1 * sum(path.stat().st_size for path in Path(tiny).glob("*.safetensors"))


def test_a_snapshot_is_taken_whole_or_not_at_all(tiny: str, tmp_path: Path) -> None:
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    backend.create_policy("p", PolicySpec(model=tiny, lora=LoRA(rank=1)))
    backend.snapshot("p", tmp_path / "snap")
    with pytest.raises(CheckpointError, match="never reused"):
        backend.snapshot("p", tmp_path / "snap")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="could not be written"):
        backend.snapshot("p", tmp_path / "file" / "snap")
    backend.close_policy("p")
    victim = tmp_path / "snap" / "snapshot.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="is not what was saved"):
        backend.revive("p", tmp_path / "snap")


def test_another_model_in_the_place_of_the_one_it_was_taken_with_is_refused(
    tiny: str, llama: str, tmp_path: Path
) -> None:
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    place = tmp_path / "model"
    place.symlink_to(tiny)
    backend.create_policy("p", PolicySpec(model=str(place)))
    backend.snapshot("p", tmp_path / "snap")
    backend.close_policy("p")
    place.unlink()
    place.symlink_to(llama)
    with pytest.raises(CheckpointError, match="other layers than"):
        backend.revive("p", tmp_path / "snap")
    assert json.loads((tmp_path / "snap" / "snapshot.json").read_text())["version"] == 0
