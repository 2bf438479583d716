"""On a GPU: what the engine finds there is what it finds on the CPU, as far as the precision goes."""

import gc
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fettle.config import CausalLM, LocalEngine, LoRA, PolicySpec, TinyModel
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.errors import EngineError
from fettle.types import datum

from .course import course, fixed, learned

if not torch.cuda.is_available():
    pytest.skip("there is no GPU here", allow_module_level=True)

KINDS = {
    "full": {},
    "lora": {"lora": LoRA(rank=4)},
    "int8": {"lora": LoRA(rank=4), "quantization": "int8"},
    "nf4": {"lora": LoRA(rank=4), "quantization": "nf4"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    settings = TinyModel(hidden=128, layers=2, heads=2, context=4096)
    return make_tiny_model(settings, tmp_path_factory.mktemp("model") / "tiny", texts=["one two three"] * 9)


@pytest.fixture
def all_memory() -> Iterator[None]:
    """Whatever a test leaves of it."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    gc.collect()
    torch.cuda.empty_cache()


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("kind", ["full", "lora", "int8", "nf4"])
def test_the_gpu_learns_and_draws_what_the_cpu_does(kind, layout, model, tmp_path):
    spec = PolicySpec(model=model, **KINDS[kind])
    here = course("cpu", spec, tmp_path / "cpu", layout=layout)
    there = course("cuda", spec, tmp_path / "cuda", layout=layout)
    np.testing.assert_allclose(there.losses, here.losses, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(there.fixed, here.fixed, atol=5e-3)
    assert there.apart < 1e-3
    assert np.array_equal(there.gone_on, there.straight), "a policy read back goes on to the same bits"


@pytest.mark.parametrize("kind", ["full", "lora", "nf4"])
def test_in_bf16_it_is_near(kind, model, tmp_path):
    spec = PolicySpec(model=model, precision="bfloat16", **KINDS[kind])
    exact = course("cpu", spec.model_copy(update={"precision": "float32"}), tmp_path / "cpu")
    rounded = course("cuda", spec, tmp_path / "cuda")
    np.testing.assert_allclose(rounded.losses[:2], exact.losses[:2], rtol=0.02)
    assert float(np.abs(rounded.fixed - exact.fixed).mean()) < 0.1
    assert rounded.apart < 0.25
    assert np.array_equal(rounded.gone_on, rounded.straight)


@pytest.mark.usefixtures("all_memory")
def test_memory_that_runs_out_is_told_and_leaves_the_policy_as_it_was(model, tmp_path):
    backend = LocalBackend(LocalEngine(device="cuda", train_tokens=1 << 20), checkpoints=tmp_path)
    backend.create_policy("p", PolicySpec(model=model))
    learned(backend, "p")
    before = fixed(backend, "p")
    free, total = torch.cuda.mem_get_info()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (64 << 20)) / total)
    long = [datum(list(range(4, 200)) * 20, [0] + [1] * 3919) for _ in range(64)]
    with pytest.raises(EngineError, match="there is not enough memory"):
        backend.forward_backward("p", long, CausalLM())
    torch.cuda.set_per_process_memory_fraction(min(1.0, free / total))
    assert np.array_equal(fixed(backend, "p"), before)
    learned(backend, "p")
    assert not np.array_equal(fixed(backend, "p"), before)
