"""Watches of tokens that another process draws: they hear of them while the drawing goes on, and can end it."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from uuid import uuid4

from fettle.engine.base import SampleRequest, Until, Watch
from fettle.types import Completion

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


Look = Callable[[Enough], Iterable[Drawn]]
"""What was drawn since the last look, told of what there is enough; it waits for nobody who is silent."""

Hear = Callable[[str], Look]
"""By the name of a call: how its tokens are looked for with those who draw for it."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Stands for a ``Watch`` in the process that draws, when the watch is where it was asked to."""

    call: str
    request: int
    tokens: bool
    """Whether it is to hear of them, and not only to end the drawing."""

    def __call__(self, completion: int, token: int, logprob: float) -> bool:
        """Where nobody takes its place, all is drawn."""
        return True


@dataclass(slots=True)
class _Call:
    drawn: list[tuple[int, int, int, float]] = field(default_factory=list)
    """Added to as they are drawn, and taken from at the other end by whoever hears."""
    told: Counter[tuple[int, int]] = field(default_factory=Counter)
    enough: Enough = frozenset()


class Kept:
    """In the process that draws: what watches elsewhere have not heard yet."""

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}

    @contextmanager
    def keeping(self, requests: Sequence[SampleRequest]) -> Iterator[list[SampleRequest]]:
        """The requests, to be drawn while the block runs."""
        calls = {each.watch.call: _Call() for each in requests if isinstance(each.watch, Elsewhere)}
        self._calls |= calls
        try:
            yield [
                replace(each, watch=_noted(calls[each.watch.call], each.watch))
                if isinstance(each.watch, Elsewhere)
                else each
                for each in requests
            ]
        finally:
            for call in calls:
                del self._calls[call]

    def heard(self, call: str, enough: Enough) -> list[Drawn]:
        """What was drawn since; on one other thread."""
        found = self._calls.get(call)
        if found is None:
            return []
        found.enough = enough
        since = len(found.drawn)
        told = []
        for request, completion, token, logprob in found.drawn[:since]:
            told.append(Drawn(request, completion, found.told[request, completion], token, logprob))
            found.told[request, completion] += 1
        del found.drawn[:since]
        return told


def _noted(call: _Call, watch: Elsewhere) -> Watch:
    """Nothing here takes long: it is called for every token."""
    request, drawn = watch.request, call.drawn

    def note(completion: int, token: int, logprob: float) -> bool:
        drawn.append((request, completion, token, logprob))
        return request not in call.enough

    return note if watch.tokens else lambda *_: request not in call.enough


class Ear:
    """Where the watches are: each is told of every token once, in order, until it has enough."""

    def __init__(self, requests: Sequence[SampleRequest], *, heard: bool) -> None:
        self._heard = heard
        self.call = uuid4().hex
        self._requests = requests
        self._watches = [None if isinstance(each.watch, Until) else each.watch for each in requests]
        self._ending = [(place, each.watch) for place, each in enumerate(requests) if isinstance(each.watch, Until)]
        self._told: Counter[tuple[int, int]] = Counter()
        self._enough: Enough = frozenset()
        self._fault: Exception | None = None

    def elsewhere(self) -> list[SampleRequest]:
        """The requests, as another process is to draw them."""
        return [
            replace(each, watch=self._elsewhere(place)) if each.watch is not None else each
            for place, each in enumerate(self._requests)
        ]

    def here(self, request: int) -> SampleRequest:
        """One of them, as it is drawn after all by whoever tells watches himself: of nothing that was heard before."""
        asked = self._requests[request]
        if self._watches[request] is None:
            return asked
        places: Counter[int] = Counter()

        def watch(completion: int, token: int, logprob: float) -> bool:
            self._tell(Drawn(request, completion, places[completion], token, logprob))
            places[completion] += 1
            return request not in self._enough

        return replace(asked, watch=watch)

    def listen(self, look: Look, over: threading.Event) -> None:
        """Until it is over. If a watch fails, no more of anything is wanted."""
        while not over.wait(EVERY):
            self._enough |= {place for place, each in self._ending if each.over()}
            drawn = look(self._enough)
            try:
                for each in drawn:
                    self._tell(each)
            except Exception as error:  # noqa: BLE001  raised again where the draw was asked for
                self._fault, self._enough = error, frozenset(range(len(self._requests)))

    def end(self, found: Sequence[Sequence[Completion]]) -> None:
        """All is drawn: tell what was not heard, and raise what a watch has raised."""
        if self._fault is not None:
            raise self._fault
        for request, completions in enumerate(found):
            for index, completion in enumerate(completions):
                since = self._told[request, index]
                left = zip(completion.tokens[since:], completion.logprobs[since:], strict=True)
                for place, (token, logprob) in enumerate(left, start=since):
                    self._tell(Drawn(request, index, place, int(token), float(logprob)))

    def _elsewhere(self, request: int) -> Watch | None:
        tokens = self._watches[request] is not None
        return Elsewhere(self.call, request, tokens) if self._heard else None

    def _tell(self, drawn: Drawn) -> None:
        """What is drawn again by another, after it was heard of, is not told again."""
        watch, which = self._watches[drawn.request], (drawn.request, drawn.completion)
        if watch is None or drawn.request in self._enough or drawn.place != self._told[which]:
            return
        self._told[which] += 1
        if not watch(drawn.completion, drawn.token, drawn.logprob):
            self._enough |= {drawn.request}


def overheard(
    requests: Sequence[SampleRequest], hear: Hear | None, draw: Callable[[Ear], list[list[Completion]]]
) -> list[list[Completion]]:
    """What ``draw`` comes to, in other processes, of requests whose watches are in this one.

    Watches are told on a thread of their own, and of the last tokens on this one; without ``hear`` of all of them at
    the end. What a watch raises is raised here.
    """
    ear, over = Ear(requests, heard=hear is not None), threading.Event()
    listener = None
    if hear is not None and any(each.watch is not None for each in requests):
        listener = threading.Thread(target=ear.listen, args=(hear(ear.call), over), name="fettle-hears", daemon=True)
        listener.start()
    try:
        found = draw(ear)
    finally:
        over.set()
        if listener is not None:
            listener.join()
    ear.end(found)
    return found
