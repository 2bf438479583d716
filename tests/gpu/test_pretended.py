"""Where no GPU is: what the engine computes with lies on its device, to the last tensor."""

import numpy as np
import pytest
import torch

from fettle.config import LoRA, PolicySpec, TinyModel
from fettle.engine.local import make_tiny_model

from .course import course
from .pretended import gpu

KINDS = {"full": {}, "nf4": {"lora": LoRA(rank=4, dropout=0.1), "quantization": "nf4"}}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and test_cuda.py tells more")
@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_keeps_what_it_computes_with_on_its_device(kind, tmp_path):
    settings = TinyModel(hidden=32, layers=1, heads=2, context=64)
    model = make_tiny_model(settings, tmp_path / "tiny", texts=["one two three"] * 9)
    spec = PolicySpec(model=model, **KINDS[kind])
    here = course("cpu", spec, tmp_path / "cpu")
    with gpu():
        with pytest.raises(RuntimeError, match="tensors on cuda:0 and on the cpu"):
            torch.ones(3, device="cuda") + torch.ones(3)
        there = course("cuda", spec, tmp_path / "cuda")
    assert there.drawn == here.drawn
    np.testing.assert_allclose(there.losses, here.losses, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(there.fixed, here.fixed, atol=1e-4)
    assert np.array_equal(there.gone_on, there.straight)
