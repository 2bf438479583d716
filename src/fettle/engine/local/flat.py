"""Parameters laid end to end: one buffer of values, and for what is trained one of gradients."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fettle.engine.local.pieces import Rows

NORM_ROW = 4096
"""Numbers whose squares are summed before their sum meets others: a running sum over millions would lose digits."""


class Flat:
    """Trained parameters as views into one buffer of values [N] and, while gradients wait, into one of gradients [N].

    They lie as ``lay_out`` lays them, and must be of one type and on one device, and stay there.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        (self.values,) = lay_out(list(self.parameters.values()))
        self.gradients: Tensor | None = None
        """What the calls since the last ``clear`` have added; None where there was none."""
        names, held = list(self.parameters), list(self.parameters.values())
        self.shapes = {names[place]: tuple(held[place].shape) for place in _order(held)}
        """In the order in which they lie."""
        self.rows: Mapping[str, Rows] = {name: Rows(shape) for name, shape in self.shapes.items()}
        """What is here of each."""
        self._first = self._buffer()
        self._later: tuple[Tensor, dict[str, Tensor]] | None = None

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """By parameter name, the parts of a buffer [N] that lies as the values do."""
        parts = torch.split(buffer, [math.prod(shape) for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def laid(self, values: Mapping[str, Tensor]) -> Tensor:
        """A buffer [N] of these values by parameter name."""
        buffer = torch.empty_like(self.values)
        for name, part in self.views(buffer).items():
            part.copy_(values[name])
        return buffer

    def changed(self) -> None:
        """The values were; whoever computes with copies of them is given new ones."""

    @contextmanager
    def holding(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """The parameters with these values in them, by name; what is not named keeps its own."""
        now = {name: self.parameters[name].data for name in values}
        try:
            for name, value in values.items():
                self.parameters[name].data = value
            yield
        finally:
            for name, value in now.items():
                self.parameters[name].data = value

    def norm(self) -> float:
        """Of all gradients that wait; 0 where none do."""
        return 0.0 if self.gradients is None else norm_of(self.gradients)

    @contextmanager
    def all_or_nothing(self, add_up: Callable[[Tensor], None] = lambda made: None) -> Iterator[None]:
        """Gradients made inside are added to those held before; if anything is raised, the old ones stay alone.

        ``add_up`` puts the sum over ranks in the place of what was made [N]. Only calls that find gradients there pay:
        for an addition each, and until ``clear`` for a second buffer.
        """
        buffer, views = self._first
        if self.gradients is not None:
            self._later = self._later or self._buffer()
            buffer, views = self._later
        buffer.zero_()
        self._point(views)
        try:
            yield
            add_up(buffer)
        except BaseException:
            self._point({} if self.gradients is None else self._first[1])
            raise
        if self.gradients is None:
            self.gradients = buffer
        else:
            self.gradients.add_(buffer)
            self._point(self._first[1])

    def hold(self, gradients: Tensor) -> None:
        """Take these [N] for what the calls since the last ``clear`` have added."""
        buffer, views = self._first
        self.gradients = buffer.copy_(gradients)
        self._point(views)

    def clear(self) -> None:
        """Forget the gradients. The memory of one buffer is kept for the next."""
        self.gradients = self._later = None
        self._point({})

    def _buffer(self) -> tuple[Tensor, dict[str, Tensor]]:
        buffer = torch.empty_like(self.values)
        return buffer, self.views(buffer)

    def _point(self, views: Mapping[str, Tensor]) -> None:
        """Let ``backward`` add into these views; where there is none, a parameter has no gradient."""
        for name, parameter in self.parameters.items():
            parameter.grad = views.get(name)


@torch.no_grad()
def lay_out(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Move values into one buffer for each type, without gaps, and make the parameters views of it.

    Those of two and more dimensions come first, the others after them, each in the order given: matrices that a model
    applies to one input (queries, keys and values) so lie as one matrix, and their biases as one bias.
    """
    buffers = []
    for dtype in dict.fromkeys(parameter.dtype for parameter in parameters):
        chosen = [parameters[place] for place in _order(parameters) if parameters[place].dtype == dtype]
        buffer = torch.empty(sum(p.numel() for p in chosen), dtype=dtype, device=chosen[0].device)
        for parameter, part in zip(chosen, torch.split(buffer, [p.numel() for p in chosen]), strict=True):
            # One at a time, so that each old tensor is let go before the next is copied.
            parameter.data = part.view(parameter.shape).copy_(parameter)
        buffers.append(buffer)
    return buffers


def norm_of(values: Tensor) -> float:
    """The 2-norm of a vector [N]."""
    whole = len(values) - len(values) % NORM_ROW
    rows = torch.linalg.vector_norm(values[:whole].view(-1, NORM_ROW), dim=1)
    return float(torch.linalg.vector_norm(torch.cat([rows, values[whole:]])))


def _order(parameters: Sequence[nn.Parameter]) -> list[int]:
    """The places of the matrices, then of the rest."""
    return sorted(range(len(parameters)), key=lambda place: parameters[place].dim() < 2)
