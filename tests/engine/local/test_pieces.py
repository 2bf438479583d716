"""One file that several ranks write: whole for whoever reads it, in whatever parts."""

from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file

from fettle.engine.local import pieces
from fettle.engine.local.pieces import Rows, rows_of
from fettle.errors import CheckpointError

CPU = torch.device("cpu")


@dataclass
class Among:
    """Satisfies ``Group`` as far as files go."""

    rank: int
    size: int
    parts = True


WHOLE = {
    "parted": torch.arange(15.0).view(5, 3),
    "fewer rows than ranks": torch.arange(2.0),
    "on every rank": torch.arange(4.0).view(2, 2),
    "a number": torch.tensor(7.0),
}
PARTED = ("parted", "fewer rows than ranks")


def held(group: Among) -> dict[str, Rows]:
    return {n: rows_of(tuple(t.shape), group) if n in PARTED else Rows(tuple(t.shape)) for n, t in WHOLE.items()}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_what_ranks_write_in_any_order_is_one_file_that_any_number_reads(tmp_path, size):
    path = tmp_path / "file.safetensors"
    for rank in reversed(range(size)):
        group = Among(rank, size)
        rows = held(group)
        own = {name: t[rows[name].start : rows[name].stop] if name in PARTED else t for name, t in WHOLE.items()}
        assert all(tuple(own[name].shape) == rows[name].own for name in WHOLE)
        pieces.write(path, {name: (own[name], rows[name]) for name in WHOLE}, group)
    found = load_file(path)
    assert found.keys() == WHOLE.keys()
    assert all(torch.equal(found[name], WHOLE[name]) for name in WHOLE)
    for readers in (1, 2, 4):
        parts = [pieces.read(path, held(Among(rank, readers)).get, CPU) for rank in range(readers)]
        for name in WHOLE:
            read = torch.cat([part[name] for part in parts]) if name in PARTED else parts[0][name]
            assert torch.equal(read, WHOLE[name])


def test_a_tensor_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "file.safetensors"
    pieces.write(path, {"w": (torch.zeros(2, 3), Rows((2, 3)))}, Among(0, 1))
    with pytest.raises(CheckpointError, match=r"holds w as \(2, 3\), and here it is \(3, 2\)"):
        pieces.read(path, {"w": Rows((3, 2))}.get, CPU)
