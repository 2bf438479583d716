"""What a journal says: how every policy, draw and answer stood when its last record was written."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from fettle.broker.journal import Entry, Place
from fettle.broker.written import Order, Snapshot
from fettle.errors import StorageError
from fettle.frames import Tree

FORMAT = 3
"""Of records: a journal of another is not read."""

LONGEST_STEP = 60.0
"""Seconds by which one answer makes those before it older, however long ago they were."""


@dataclass(slots=True)
class PastCall:
    """An operation or a draw."""

    place: Place
    said: Tree
    """Its record, without the call."""


@dataclass(slots=True)
class PastAnswer:
    """What an operation or a draw came to."""

    place: Place
    said: Tree
    at: float
    """When it was given, on the past's own clock."""

    @property
    def result(self) -> Tree:
        """The answer itself."""
        return self.said["result"]

    @property
    def failed(self) -> bool:
        """Whether it is an error."""
        return bool(self.result["type"] == "error")


@dataclass(slots=True)
class PastPolicy:
    """One that was not forgotten."""

    place: Place
    said: Tree
    """The record that it was opened with, or the newest that says how it stood."""
    call: bytes
    incarnation: int = 0
    version: int = 0
    closed: bool = False
    acknowledged: bool = False
    opened: Tree = None
    """What opening it came to."""
    seconds: float = 0.0
    """Of computing that opening it took."""
    at: float = 0.0
    """When that was answered."""
    parked: bool = False
    snapshots: list[Snapshot] = field(default_factory=list)
    pins: dict[str, int] = field(default_factory=dict)
    used: set[Order] = field(default_factory=set)
    since: float = 0.0
    """When opening it was answered, on the past's own clock."""


@dataclass(slots=True)
class Past:
    """All that a journal says."""

    policies: dict[str, PastPolicy] = field(default_factory=dict)
    operations: dict[str, dict[Order, PastCall]] = field(default_factory=dict)
    """Of each policy, from its oldest snapshot that is kept. They may lie before the record that says how it stands."""
    answers: dict[str, dict[str, PastAnswer]] = field(default_factory=dict)
    """Of each policy, and of draws under the empty name, by the id of the promise."""
    draws: dict[str, PastCall] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    released: set[str] = field(default_factory=set)
    newest: float = 0.0
    """When the last answer was given, by the clock of the process that gave it."""
    clock: float = 0.0
    """Seconds from the first answer to the last, of which no two in a row are taken to lie further apart than
    ``LONGEST_STEP``: clocks of machines jump."""
    threads: int = 0
    """Of arithmetic, when the newest file was begun."""

    def age(self, at: float, since: float) -> float:
        """Seconds from an answer to the last one: while nobody could ask, none ages."""
        return min(max(0.0, self.newest - at), self.clock - since)

    def answer(self, call: PastCall) -> PastAnswer | None:
        """What it came to, if that is known."""
        return self.answers.get(call.said["policy"], {}).get(call.said["id"])


def past_of(entries: Iterable[Entry]) -> Past:
    """The records of a journal, put together."""
    past = Past()
    for entry in entries:
        _RECORDS[entry.tree["record"]](past, entry.place, entry.tree)
    return past


def figures(result: Tree) -> dict[str, float]:
    """What two answers to the same call have in common, but for the time they took."""
    found = {name: result[name] for name in ("loss", "grad_norm", "policy_version", "version") if name in result}
    return {**found, **result.get("metrics", {})}


def _head(past: Past, place: Place, tree: Tree) -> None:
    if tree["format"] != FORMAT:
        raise StorageError(
            f"the journal was written in format {tree['format']}, and this version reads {FORMAT}: "
            "let the version that wrote it finish its runs"
        )
    past.threads = tree["threads"]


def _begins(past: Past, tree: Tree) -> None:
    """A call is taken in: what was said of one that had its name before is over."""
    id = tree["id"]
    past.answers.get(tree["policy"], {}).pop(id, None)
    past.acknowledged.discard(id)
    past.released.discard(id)


def _open(past: Past, place: Place, tree: Tree) -> None:
    _begins(past, tree)
    past.operations[tree["policy"]] = {}
    past.policies[tree["policy"]] = PastPolicy(place, _without_call(tree), bytes(tree["call"].data))


def _operation(past: Past, place: Place, tree: Tree) -> None:
    _begins(past, tree)
    own = past.operations.setdefault(tree["policy"], {})
    own[tree["incarnation"], tree["seq"]] = PastCall(place, _without_call(tree))


def _policy(past: Past, place: Place, tree: Tree) -> None:
    policy = PastPolicy(
        place,
        _without_call(tree),
        bytes(tree["call"].data),
        tree["incarnation"],
        tree["version"],
        tree["closed"],
        tree["acknowledged"],
        tree["opened"],
        tree["seconds"],
        tree["at"],
        tree["parked"],
        [Snapshot((one, seq), folder, tuple(held)) for one, seq, folder, held in tree["snapshots"]],
        dict(tree["pins"]),
        {(one, seq) for one, seq in tree["used"]},
    )
    policy.since = past.clock
    first = policy.snapshots[0].before if policy.snapshots else (0, 0)
    own = past.operations.get(tree["policy"], {})
    past.operations[tree["policy"]] = {order: call for order, call in own.items() if order >= first}
    past.policies[tree["policy"]] = policy


def _attach(past: Past, place: Place, tree: Tree) -> None:
    if tree["policy"] in past.policies:
        past.policies[tree["policy"]].incarnation = tree["incarnation"]


def _draw(past: Past, place: Place, tree: Tree) -> None:
    _begins(past, tree)
    past.draws[tree["id"]] = PastCall(place, {name: value for name, value in tree.items() if name != "requests"})


def _answer(past: Past, place: Place, tree: Tree) -> None:
    if past.newest:
        past.clock += min(max(0.0, tree["at"] - past.newest), LONGEST_STEP)
    past.newest = tree["at"]
    past.answers.setdefault(tree["policy"], {})[tree["id"]] = PastAnswer(place, tree, past.clock)
    policy, result = past.policies.get(tree["policy"]), tree["result"]
    if policy is None:
        return
    if tree["kind"] in ("create", "load"):
        policy.opened, policy.acknowledged, policy.closed = result, not tree["kept"], result["type"] == "error"
        policy.seconds, policy.at, policy.since = tree["seconds"], tree["at"], past.clock
    if tree["kind"] == "close" and result.get("code") != "cancelled":
        policy.closed = True
    if result["type"] in ("step", "version"):
        policy.version = result.get("version", result.get("policy_version"))
    if tree["kind"] == "pin" and result["type"] == "version":
        policy.pins[tree["id"]] = result["version"]


def _acknowledge(past: Past, place: Place, tree: Tree) -> None:
    past.acknowledged.update(tree["ids"])


def _release(past: Past, place: Place, tree: Tree) -> None:
    past.released.add(tree["pin"])


def _forget(past: Past, place: Place, tree: Tree) -> None:
    past.policies.pop(tree["policy"], None)
    past.operations.pop(tree["policy"], None)
    past.answers.pop(tree["policy"], None)


def _without_call(tree: Tree) -> Tree:
    return {name: value for name, value in tree.items() if name != "call"}


_RECORDS: Mapping[str, Callable[[Past, Place, Tree], None]] = MappingProxyType(
    {
        "head": _head,
        "open": _open,
        "operation": _operation,
        "policy": _policy,
        "attach": _attach,
        "draw": _draw,
        "answer": _answer,
        "acknowledge": _acknowledge,
        "release": _release,
        "forget": _forget,
    }
)
