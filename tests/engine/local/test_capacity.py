"""What a policy would take is told without making it, and is what it then takes."""

import json
import shutil
from itertools import chain
from pathlib import Path

import pytest
import torch

from fettle.config import AdamW, CausalLM, LocalEngine, LoRA, PolicySpec
from fettle.engine.local import LocalBackend
from fettle.errors import ConfigError, ModelError
from fettle.types import datum

DATA = [datum([5, 6, 7], [0, 1, 1])]


def taken(backend: LocalBackend, policy: str) -> int:
    """By its numbers, the gradients of two calls, and moments."""
    held = backend._policies[policy]
    for _ in range(2):
        backend.forward_backward(policy, DATA, CausalLM())
    flat = held._flat
    tensors = [flat.values, flat._first[0], flat._later[0] if flat._later else None]
    backend.optim_step(policy, AdamW())
    moments = [value for name, value in held._optimizer.held.items() if name != "step"]
    return sum(tensor.nbytes for tensor in [*tensors, *moments] if tensor is not None)


def base_bytes(backend: LocalBackend, policy: str) -> int:
    module = backend._policies[policy].model.module
    weights = chain(module.parameters(), (b for name, b in module.named_buffers() if "rotary" not in name))
    return sum(tensor.nbytes for tensor in weights)


@pytest.mark.parametrize("architecture", ["tiny", "llama", "gpt2"])
@pytest.mark.parametrize("lora", [None, LoRA(rank=4), LoRA(rank=2, alpha=4)])
def test_a_policy_takes_what_was_told(
    architecture: str, lora: LoRA | None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    spec = PolicySpec(model=request.getfixturevalue(architecture), lora=lora)
    told = backend.policy_bytes(spec)
    backend.create_policy("p", spec)
    base = 0 if lora is None else base_bytes(backend, "p")
    assert told == taken(backend, "p") + base
    assert backend.policy_bytes(spec) == told - base  # which is here now


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_base_in_few_bits_takes_what_was_told(quantization: str, tiny: str, tmp_path: Path) -> None:
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    lora = {"rank": 2, "targets": ["q_proj"]}
    spec = PolicySpec.model_validate({"model": tiny, "lora": lora, "quantization": quantization})
    told = backend.policy_bytes(spec)
    backend.create_policy("p", spec)
    assert told == taken(backend, "p") + base_bytes(backend, "p")


def test_asking_leaves_the_type_of_new_tensors_alone(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is the whole process's: another thread may be making some."""
    folder = shutil.copytree(tiny, tmp_path / "half")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    changed: list[torch.dtype] = []
    monkeypatch.setattr(torch, "set_default_dtype", changed.append)
    LocalBackend(LocalEngine(), checkpoints=tmp_path).policy_bytes(PolicySpec(model=str(folder)))
    assert not changed


def test_what_cannot_be_made_is_refused_when_it_is_asked_about(tiny: str, tmp_path: Path) -> None:
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    with pytest.raises(ConfigError, match="names 'w_proj'"):
        backend.policy_bytes(PolicySpec(model=tiny, lora=LoRA(targets=("w_proj",))))
    with pytest.raises(ModelError, match="its config is not on this machine"):
        backend.policy_bytes(PolicySpec(model=str(tmp_path / "nowhere")))
