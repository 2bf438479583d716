"""Watches of tokens that another process draws: they hear of them while the drawing goes on, and can end it."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar
from uuid import uuid4

from fettle.engine.base import SampleRequest
from fettle.types import Completion

Found = TypeVar("Found", bound="list[Completion] | None")

EVERY = 0.05
"""Seconds between looks at what was drawn."""

Enough = frozenset[int]
"""Requests of which no more is wanted."""


class Drawn(NamedTuple):
    """A token for a watch."""

    request: int
    completion: int
    place: int
    """In its completion."""
    token: int
    logprob: float


Hear = Callable[[str, Enough], Iterable[Drawn]]
"""What was drawn for a call since it was last asked, by whichever process draws for it; and of what there is enough."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Stands for a ``Watch`` in the process that draws, when the watch is where it was asked to."""

    call: str
    request: int

    def __call__(self, index: int, token: int, logprob: float) -> bool:
        """Where nobody takes its place, all is drawn."""
        return True


class Kept:
    """In the process that draws: what watches elsewhere have not heard yet."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._drawn: dict[str, list[Drawn]] = {}
        self._enough: dict[str, Enough] = {}

    @contextmanager
    def keeping(self, requests: Sequence[SampleRequest]) -> Iterator[list[SampleRequest]]:
        """The requests, to be drawn while the block runs."""
        calls = {each.watch.call for each in requests if isinstance(each.watch, Elsewhere)}
        with self._turn:
            self._drawn |= {call: [] for call in calls}
            self._enough |= dict.fromkeys(calls, frozenset())
        try:
            yield [
                replace(each, watch=self._noted(each.watch)) if isinstance(each.watch, Elsewhere) else each
                for each in requests
            ]
        finally:
            with self._turn:
                for call in calls:
                    del self._drawn[call], self._enough[call]

    def heard(self, call: str, enough: Enough) -> list[Drawn]:
        """What was drawn since; on any thread."""
        with self._turn:
            if call not in self._drawn:
                return []
            self._enough[call] = enough
            found, self._drawn[call] = self._drawn[call], []
            return found

    def _noted(self, watch: Elsewhere) -> Callable[[int, int, float], bool]:
        places: Counter[int] = Counter()

        def note(index: int, token: int, logprob: float) -> bool:
            with self._turn:
                self._drawn[watch.call].append(Drawn(watch.request, index, places[index], token, logprob))
                places[index] += 1
                return watch.request not in self._enough[watch.call]

        return note


class _Ear:
    """Where the watches are: each is told of every token once, in order, until it has enough."""

    def __init__(self, requests: Sequence[SampleRequest]) -> None:
        self.call = uuid4().hex
        self._watches = [each.watch for each in requests]
        self._told: Counter[tuple[int, int]] = Counter()
        self.enough: Enough = frozenset()
        self.fault: Exception | None = None

    def listen(self, hear: Hear, over: threading.Event) -> None:
        """Until it is over, or a watch has failed."""
        try:
            while not over.wait(EVERY):
                for each in hear(self.call, self.enough):
                    self._tell(each)
        except Exception as error:  # noqa: BLE001  raised again where the draw was asked for
            self.fault = error

    def rest(self, request: int, completions: Sequence[Completion]) -> None:
        """Of what is drawn whole, all that was not heard."""
        for index, completion in enumerate(completions):
            since = self._told[request, index]
            left = zip(completion.tokens[since:], completion.logprobs[since:], strict=True)
            for place, (token, logprob) in enumerate(left, start=since):
                self._tell(Drawn(request, index, place, int(token), float(logprob)))

    def _tell(self, drawn: Drawn) -> None:
        """What is drawn again by another, after it was heard of, is not told again."""
        watch, which = self._watches[drawn.request], (drawn.request, drawn.completion)
        if watch is None or drawn.request in self.enough or drawn.place != self._told[which]:
            return
        self._told[which] += 1
        if not watch(drawn.completion, drawn.token, drawn.logprob):
            self.enough |= {drawn.request}


def overheard(
    requests: Sequence[SampleRequest], hear: Hear | None, draw: Callable[[list[SampleRequest]], list[Found]]
) -> list[Found]:
    """What ``draw`` comes to, in other processes, of requests whose watches are in this one.

    Watches are told on a thread of their own, and of the last tokens on this one; without ``hear`` of all of them at
    the end. What a watch raises is raised here.
    """
    ear, over = _Ear(requests), threading.Event()
    asked = [
        each if each.watch is None else replace(each, watch=Elsewhere(ear.call, place))
        for place, each in enumerate(requests)
    ]
    listener = None
    if hear is not None and any(each.watch is not None for each in requests):
        listener = threading.Thread(target=ear.listen, args=(hear, over), name="fettle-hears", daemon=True)
        listener.start()
    try:
        found = draw(asked)
    finally:
        over.set()
        if listener is not None:
            listener.join()
    if ear.fault is not None:
        raise ear.fault
    for request, completions in enumerate(found):
        if completions is not None:
            ear.rest(request, completions)
    return found
