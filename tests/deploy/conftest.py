"""A policy that was trained a little, saved as an adapter and as whole weights."""

from pathlib import Path

import pytest
import torch

from fettle.config import LoRA, PolicySpec, TinyModel
from fettle.engine.local import make_tiny_model
from fettle.engine.local.model import load_model
from fettle.engine.local.policy import LocalPolicy

TINY = TinyModel(hidden=32, layers=2, heads=2, context=64)


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> str:
    return make_tiny_model(TINY, tmp_path_factory.mktemp("base") / "model", texts=["one two three four"])


def saved(base: str, folder: Path, **asked: object) -> Path:
    """A checkpoint whose weights are not those that it began with, in a run's folder."""
    spec = PolicySpec(model=base, **asked)
    trained = spec.lora is None
    model = load_model(
        base, device=torch.device("cpu"), precision="float32", trained=trained, quantization=spec.quantization
    )
    policy = LocalPolicy(spec, model, version=7)
    random = torch.Generator().manual_seed(1)
    for parameter in policy._parameters.values():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=random)
    folder.joinpath("run", "checkpoints").mkdir(parents=True)
    folder.joinpath("run", "config.yaml").write_text("type: sft\n")
    return Path(policy.save(folder / "run" / "checkpoints" / "step-000007", optimizer=True).path)


@pytest.fixture(scope="session")
def adapted(base, tmp_path_factory) -> Path:
    return saved(base, tmp_path_factory.mktemp("adapted"), lora=LoRA(rank=4))


@pytest.fixture(scope="session")
def whole(base, tmp_path_factory) -> Path:
    return saved(base, tmp_path_factory.mktemp("whole"), lora=None)
