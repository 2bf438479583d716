"""One recorded optimizer step, carried out once more from the journal alone, beside what was recorded of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fettle.broker.calls import carried_out
from fettle.broker.journal import entries, segment_numbers
from fettle.broker.past import Past, PastCall, figures, past_of
from fettle.broker.revival import FOLDER
from fettle.broker.segments import read
from fettle.broker.written import Order, Snapshot, call_in
from fettle.calls import Call, call_of
from fettle.engine.base import Backend
from fettle.errors import ConfigError, NotFoundError, did_you_mean
from fettle.frames import result_tree, unpacked

STATE = "journal"
"""The journal's folder in the state folder of a service."""

REPEATED = frozenset({"forward_backward", "optim_step", "undo", "restore"})
"""Calls that change what the next ones come to."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure of one call, as it was recorded and as it came out again."""

    operation: str
    kind: str
    figure: str
    recorded: float
    found: float

    @property
    def same(self) -> bool:
        """To the bit; a NaN is like itself."""
        return repr(self.recorded) == repr(self.found)


class Recording:
    """The journal in ``folder``, which may be a service's state folder; only read, so that it may be in use.

    Raises:
        NotFoundError: there is no journal.
        StorageError: it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / STATE if (folder / STATE).is_dir() else folder
        if not segment_numbers(self._folder):
            raise NotFoundError(f"{folder} holds no journal: name the state folder of a service, or a copy of it")
        self._past: Past = past_of(entries(self._folder))

    @property
    def threads(self) -> int:
        """Of arithmetic, with which it was written."""
        return self._past.threads

    def run(self, named: str | None) -> str:
        """The run of that name, or the only one.

        Raises:
            ConfigError: there is no such run, or several to choose from.
        """
        runs = list(self._past.policies)
        if named is None and len(runs) == 1:
            return runs[0]
        if named not in runs:
            which = f"there is no run {named!r}" if named else "it holds several runs: say which with --run"
            raise ConfigError(f"{self._folder}: {which}{did_you_mean(named or '', runs)} (there are {', '.join(runs)})")
        return named

    def steps(self, run: str) -> list[int]:
        """Those that can be carried out once more: by the version that each made."""
        return [step for step, (first, _) in self._spans(run).items() if self._start(run, first) is not None]

    def replayed(self, run: str, step: int, backend: Backend) -> Iterator[Compared]:
        """Carry out a step's calls on ``backend``, from the nearest snapshot before them.

        Raises:
            NotFoundError: the journal holds no such step, or nothing that it could begin from.
        """
        if step not in self.steps(run):
            held = ", ".join(map(str, self.steps(run))) or "none"
            raise NotFoundError(f"step {step} of {run} cannot be replayed: of its steps the journal holds {held}")
        first, last = self._spans(run)[step]
        begin = self._begun(run, first, backend)
        for order, operation in sorted(self._past.operations[run].items()):
            answer = self._past.answer(operation)
            if not begin <= order <= last or answer is None or answer.failed:
                continue
            if operation.said["kind"] not in REPEATED:
                continue
            found = result_tree(carried_out(backend, run, operation.said["id"], self._call(operation)))
            if order >= first:
                yield from _compared(operation, figures(answer.result), figures(found))

    def _begun(self, run: str, first: Order, backend: Backend) -> Order:
        """Make the policy as it was before ``first``, or some calls earlier; returns the first call to repeat."""
        start = self._start(run, first)
        if isinstance(start, Snapshot):
            backend.revive(run, self._folder / FOLDER / run / start.folder)
            return start.before
        carried_out(backend, run, "", call_of(unpacked(self._past.policies[run].call)))
        return (0, 0)

    def _start(self, run: str, first: Order) -> Snapshot | bool | None:
        """The newest snapshot before ``first``; True where the run's own beginning serves; None where nothing does."""
        snapshots = self._past.policies[run].snapshots
        if not snapshots:
            return True
        return next((each for each in reversed(snapshots) if each.before <= first), None)

    def _spans(self, run: str) -> dict[int, tuple[Order, Order]]:
        """By the version that it made: the first call of each step, and the step itself."""
        spans: dict[int, tuple[Order, Order]] = {}
        first: Order | None = None
        for order, operation in sorted(self._past.operations.get(run, {}).items()):
            answer = self._past.answer(operation)
            if answer is None or answer.failed or operation.said["kind"] not in REPEATED:
                continue
            first = first or order
            if operation.said["kind"] == "optim_step":
                spans[answer.result["policy_version"]] = (first, order)
            if operation.said["kind"] != "forward_backward":
                first = None
        return spans

    def _call(self, operation: PastCall) -> Call:
        path = self._folder / f"{operation.place.segment:08d}.log"
        return call_in(unpacked(read(path, operation.place.offset)))


def _compared(operation: PastCall, recorded: Mapping[str, float], found: Mapping[str, float]) -> Iterator[Compared]:
    for figure, value in recorded.items():
        yield Compared(operation.said["id"], operation.said["kind"], figure, value, found.get(figure, float("nan")))
