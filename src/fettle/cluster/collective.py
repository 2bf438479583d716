"""What ranks tell each other, over torch.distributed."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

BACKENDS = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
"""By what, for tensors of each kind of device."""

WAITING = timedelta(hours=1)
"""A rank that is slow is waited for; one that is dead is found out by whoever drives them."""


def meeting_place(host: str, port: int = 0, *, kept: bool = False) -> TCPStore:
    """Where ranks find each other: ``kept`` by this process, on a free port, or by another."""
    return TCPStore(host, port, is_master=kept, wait_for_workers=False)


class BrokenError(Exception):
    """The ranks have lost each other: only a new group helps."""


class Joined:
    """Satisfies ``Group``. It ends with ``part``, after which another can be made in the same process."""

    def __init__(self, store: TCPStore, rank: int, size: int, *, parts: bool) -> None:
        self.rank, self.size, self.parts = rank, size, parts
        with _mended():
            dist.init_process_group(BACKENDS, store=store, rank=rank, world_size=size, timeout=WAITING)

    def told(self, own: object) -> list[object]:
        """What every rank says."""
        found: list[object] = [None] * self.size
        with _mended():
            dist.all_gather_object(found, own)
        return found

    def add_up(self, values: Tensor) -> None:
        """The sum over ranks, made in one place for each number, and so the same everywhere."""
        with _mended():
            dist.all_reduce(values)


def part() -> None:
    """Leave the group, if there is one; ranks that wait for this one are told."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _mended() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise BrokenError(str(error).splitlines()[0]) from error
