"""The cache of models that are only read: bounded in bytes, whatever the bits that they are stored in."""

from pathlib import Path

import torch

from fettle.config import LocalEngine
from fettle.engine.local import LocalBackend
from fettle.engine.local.frozen import FrozenModels
from fettle.engine.local.model import load_model

CPU = torch.device("cpu")


def test_frozen_models_are_kept_within_a_bound_and_counted(tiny, llama, gpt2, tmp_path):
    size = sum(
        p.numel() * 4 for p in load_model(tiny, device=CPU, precision="float32", trained=False).parameters.values()
    )
    backend = LocalBackend(LocalEngine(frozen_gib=3.2 * size / 2**30), checkpoints=Path(tmp_path))
    for weights in (tiny, llama, tiny, gpt2, llama):
        backend.open(weights)
    told = backend.statistics()
    assert told["frozen_bytes"] <= 3.2 * size
    assert told["frozen_hit_rate"] == 1 / 5  # llama made room for gpt2, the least recently used
    assert told["frozen_models"] == 2


def test_frozen_models_in_few_bits_are_counted_too(tiny):
    def bytes_of(quantization: str | None) -> float:
        model = load_model(tiny, device=CPU, precision="float32", trained=False, quantization=quantization)
        held = FrozenModels(1 << 40)
        held.model("base", lambda _: (model, 0))
        return held.statistics()["frozen_bytes"]

    linear = sum(
        module.weight.numel()
        for name, module in load_model(tiny, device=CPU, precision="float32", trained=False).module.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    )
    saved = bytes_of(None) - bytes_of("int8")
    assert 2.8 * linear < saved < 3 * linear  # three bytes of four, less a scale a row
