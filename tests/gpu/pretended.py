"""A GPU that is not there: tensors that say they lie on one, and are computed with on the CPU.

As on a GPU, they do not mix with the CPU's tensors, and numpy cannot read them: code that forgets to move a tensor, or
to fetch one, fails. Nothing is known from it of a GPU's kernels, rounding, memory or speed.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest import mock

import torch
import torch._dynamo  # loaded late, it would be loaded in the middle of this
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
UNDER = torch.device("lazy", 0)
"""What torch's own code takes them for: a device that it can name, without one being there."""
ATEN = torch.ops.aten
MOVING = (ATEN._to_copy.default, ATEN.copy_.default)
INDEXING = (ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default, ATEN._index_put_impl_.default)
"""Operations whose second argument may lie on the CPU."""


class Pretended(torch.Tensor):
    """Says that it lies on a GPU; ``inner`` does not."""

    @staticmethod
    def __new__(cls, inner):
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, inner.size(), device=UNDER, **layout)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return done(operation, args, kwargs or {})

    def _lies_at(self, other):
        self.inner = other.inner

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    data = property(lambda self: self.detach(), _lies_at)

    def untyped_storage(self):
        return self.inner.untyped_storage()

    storage = untyped_storage

    def data_ptr(self):
        return self.inner.data_ptr()

    def set_(self, storage):
        return Pretended(self.inner.set_(storage))

    def tolist(self):
        return self.inner.tolist()


def done(operation, args, kwargs):
    """An operation on the CPU; what comes of it lies where it would on a machine with a GPU."""
    there = any(isinstance(each, Pretended) for each in tree_leaves((args, kwargs)))
    if there and operation not in MOVING:
        _alike(operation, (args[0], *args[2:]) if operation in INDEXING else args)
    device = kwargs.get("device")
    if operation is ATEN.copy_.default:
        there = isinstance(args[0], Pretended)
    elif device is not None:
        there = torch.device(device).type in (UNDER.type, GPU.type)  # in a backward of its own, names come as they are
        kwargs = {**kwargs, "device": CPU if there else device}
    own, named = tree_map_only(Pretended, lambda each: each.inner, (args, kwargs))
    found = operation(*own, **named)
    if not there:
        return found
    made = tree_map_only(torch.Tensor, lambda each: each if isinstance(each, Pretended) else Pretended(each), found)
    return return_and_correct_aliasing(operation, args, kwargs, made)


def _alike(operation, args) -> None:
    for each in tree_leaves(args):
        if isinstance(each, torch.Tensor) and not isinstance(each, Pretended) and each.dim():
            raise RuntimeError(f"{operation}: tensors on cuda:0 and on the cpu")


class Operations(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return done(operation, args, kwargs or {})


class Names(TorchFunctionMode):
    """What is asked for on a GPU is asked for where it is pretended to be."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if isinstance(kwargs.get("device"), str):
            kwargs["device"] = torch.device(kwargs["device"])
        args, kwargs = tree_map_only(
            torch.device, lambda each: UNDER if each.type == GPU.type else each, (args, kwargs)
        )
        if function is torch.tensor and kwargs.get("device") == UNDER:
            return function(*args, **{**kwargs, "device": CPU}).to(UNDER)
        return function(*args, **kwargs)


class Generator(torch.Generator):
    """On the CPU, whatever it was asked for."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls, CPU)


@contextmanager
def gpu() -> Iterator[None]:
    """There is one, as far as torch and what stands on it can tell."""
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # so that weights that are tied stay so when moved
    seen = SimpleNamespace(total_memory=80 << 30, name="pretended")
    with ExitStack() as stack:
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swapped)
        stack.enter_context(mock.patch("torch.cuda._lazy_init", return_value=None))
        stack.enter_context(mock.patch("torch.cuda.is_available", return_value=True))
        stack.enter_context(mock.patch("torch.cuda.get_device_properties", return_value=seen))
        stack.enter_context(mock.patch("torch.Generator", Generator))
        stack.enter_context(Operations())
        stack.enter_context(Names())
        yield
