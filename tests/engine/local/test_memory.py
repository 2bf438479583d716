"""Memory that runs out."""

import pytest
import torch

from fettle.engine.local.memory import enough_memory
from fettle.errors import EngineError


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
    ],
)
def test_it_is_one_sentence_with_what_helps(error):
    with (
        pytest.raises(EngineError, match=r"^there is not enough memory to sample: wait$"),
        enough_memory("to sample", "wait"),
    ):
        raise error


def test_what_else_goes_wrong_is_passed_on():
    with pytest.raises(RuntimeError, match="shapes"), enough_memory("to sample", "wait"):
        raise RuntimeError("shapes do not fit")
