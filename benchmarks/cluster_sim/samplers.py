"""What draws: GPUs that batch continuously, and the one thread of a local engine that takes a call at a time."""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from benchmarks.cluster_sim.episodes import Episode
from benchmarks.cluster_sim.events import Clock, Line, Tally, Then
from fettle.randomness import key

Routing = Literal["sticky", "grouped", "hashed", "free"]
"""Where a turn is drawn: where the episode began, which is the least loaded sampler of the moment; where its group
began; where a hash says; or wherever there is least to do now, which may have to read the conversation anew."""


class Drawing(Protocol):
    """What episodes are drawn from."""

    def draw(self, episode: Episode, turn: int, then: Then) -> None:
        """Draw a turn's reply."""

    def stall(self, seconds: float) -> None:
        """Nothing is drawn for so long: weights are being loaded."""

    @property
    def used(self) -> float:
        """Seconds so far in which samplers were at work, on average over them."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast one sampler is."""

    read: Callable[[int], float]
    """Seconds to read so many tokens of prompt."""
    token: Callable[[int, float], float]
    """Seconds in which each of so many sequences gains a token, while they hold so many tokens together."""
    room: float
    """Tokens that the cache holds."""


class _Asked(NamedTuple):
    fresh: int
    context: int
    drawn: int
    entered: float
    then: Then


class Sampler:
    """Sequences share it: all gain a token at a time, the more of them the slower; what is read holds all up."""

    def __init__(self, clock: Clock, rates: Rates) -> None:
        self._clock = clock
        self._rates = rates
        self._gained = 0.0  # tokens that a sequence which was always here would have gained
        self._since = 0.0
        self._stalled = 0.0
        self._active: list[tuple[float, int, _Asked]] = []
        self._waiting: deque[_Asked] = deque()
        self._held = 0.0
        self._number = 0
        self._planned = 0
        self.tally = Tally(clock)

    def draw(self, fresh: int, context: int, drawn: int, then: Then) -> None:
        """Read ``fresh`` of the ``context``'s tokens, and draw as many as are ``drawn``."""
        self._waiting.append(_Asked(fresh, context, drawn, self.tally.enter(), then))
        self._move()

    def stall(self, seconds: float) -> None:
        """Whatever is being drawn waits, and goes on."""
        self._move()
        self._hold_up(seconds)
        self._plan()

    def _move(self) -> None:
        """Up to now: those who are done leave, those who wait and have room come in."""
        now = self._clock.now
        began = max(self._since, min(self._stalled, now))
        if self._active and now > began:
            self._gained += (now - began) / self._rates.token(len(self._active), self._held)
        self._since = now
        done = []
        while self._active and self._active[0][0] <= self._gained + 1e-6:
            asked = heapq.heappop(self._active)[2]
            self._held -= asked.context + asked.drawn / 2
            done.append(asked)
        while self._waiting and self._fits(self._waiting[0]):
            self._begin(self._waiting.popleft())
        self._plan()
        for asked in done:
            self.tally.leave(asked.entered)
            asked.then()

    def _fits(self, asked: _Asked) -> bool:
        return not self._active or self._held + asked.context + asked.drawn / 2 <= self._rates.room

    def _begin(self, asked: _Asked) -> None:
        self._hold_up(self._rates.read(asked.fresh))
        self._held += asked.context + asked.drawn / 2  # on average while it is drawn
        self._number += 1
        heapq.heappush(self._active, (self._gained + asked.drawn, self._number, asked))

    def _hold_up(self, seconds: float) -> None:
        self._stalled = max(self._clock.now, self._stalled) + seconds

    def _plan(self) -> None:
        self._planned += 1
        if self._active:
            left = self._active[0][0] - self._gained
            seconds = max(0.0, left) * self._rates.token(len(self._active), self._held)
            self._clock.after(max(0.0, self._stalled - self._clock.now) + seconds, self._come, self._planned)

    def _come(self, planned: int) -> None:
        if planned == self._planned:
            self._move()


class Pool:
    """Several samplers, and which of them draws what."""

    def __init__(self, clock: Clock, samplers: int, rates: Rates, routing: Routing, *, seed: int = 0) -> None:
        self.samplers = [Sampler(clock, rates) for _ in range(samplers)]
        self._routing = routing
        self._seed = seed
        self._load = [0] * samplers
        self._places: dict[object, int] = {}
        self._prompts: set[tuple[int, int, int]] = set()

    def draw(self, episode: Episode, turn: int, then: Then) -> None:
        """A turn of an episode. What its sampler has read, of it or of its group's prompt, is not read again."""
        place, before = self._place(episode, turn), self._places.get(episode[:3])
        self._places[episode[:3]] = place
        past = sum(each.told + each.drawn for each in episode.turns[:turn])
        told = episode.turns[turn].told
        fresh = told if place == before else past + told
        prompt = (place, episode.batch, episode.group)
        if place != before and prompt in self._prompts:
            fresh -= episode.turns[0].told
        self._prompts.add(prompt)
        stays = self._routing != "free" and turn + 1 < len(episode.turns)

        def drawn() -> None:
            if not stays:
                self._load[place] -= 1
            then()

        if turn == 0 or self._routing == "free":
            self._load[place] += 1
        self.samplers[place].draw(max(1, fresh), past + told, episode.turns[turn].drawn, drawn)

    def stall(self, seconds: float) -> None:
        """All of them load at once."""
        for sampler in self.samplers:
            sampler.stall(seconds)

    @property
    def used(self) -> float:
        """On average over the samplers."""
        return sum(sampler.tally.busy for sampler in self.samplers) / len(self.samplers)

    def _place(self, episode: Episode, turn: int) -> int:
        if self._routing == "hashed":
            return key(self._seed, "place", *episode[:3]) % len(self.samplers)
        if self._routing == "grouped":
            group = episode[:2]
            if group not in self._places:
                self._places[group] = self._least()
            return self._places[group]
        return self._least() if turn == 0 or self._routing == "free" else self._places[episode[:3]]

    def _least(self) -> int:
        return min(range(len(self._load)), key=self._load.__getitem__)


class Joined:
    """A local engine: requests of one moment become one call, and calls are taken one at a time.

    Several ranks share out the requests of a call, which ends with the last of them.
    """

    def __init__(self, clock: Clock, device: Line, seconds: Callable[[Sequence[int]], float]) -> None:
        """``seconds`` is how long a call takes whose requests draw so many tokens each; ``device`` may be shared."""
        self._clock = clock
        self._device = device
        self._seconds = seconds
        self._asked: list[tuple[int, Then]] = []
        self._drawing = Tally(clock)

    def draw(self, episode: Episode, turn: int, then: Then) -> None:
        """Joined with whatever else is asked now."""
        if not self._asked:
            self._clock.after(0.0, self._call)
        self._asked.append((episode.turns[turn].drawn, then))

    def stall(self, seconds: float) -> None:
        """Another thing that the device does."""
        self._device.take(seconds, lambda: None)

    @property
    def used(self) -> float:
        """Of the device, with what else it does."""
        return self._device.used

    def _call(self) -> None:
        asked, self._asked = self._asked, []
        self._device.take(self._seconds([drawn for drawn, _ in asked]), lambda: [then() for _, then in asked])
