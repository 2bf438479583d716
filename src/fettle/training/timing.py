"""Where the seconds of a loop's steps go: parts that add up to the step."""

import functools
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from fettle.config import AdamW, LossConfig, SamplingParams
from fettle.engine import Policy, Pooling, ReadRequest, Sampler
from fettle.environments import Environment, Game, GameSuite, Suite
from fettle.types import Checkpoint, Completion, Datum, Floats, ForwardResult, OptimResult, PromptReading, Tokens

FORWARD, BACKWARD, OPTIMIZER = "forward", "backward", "optimizer"

Given = ParamSpec("Given")
Found = TypeVar("Found")


class Busy:
    """A context that many may be in at once: the seconds in which anybody was."""

    def __init__(self) -> None:
        self._inside = 0
        self._since = 0.0
        self._before = 0.0

    def __enter__(self) -> None:
        if not self._inside:
            self._since = time.perf_counter()
        self._inside += 1

    def __exit__(self, *_: object) -> None:
        self._inside -= 1
        if not self._inside:
            self._before += time.perf_counter() - self._since

    def during(self, call: Callable[Given, Coroutine[Any, Any, Found]]) -> Callable[Given, Coroutine[Any, Any, Found]]:
        """The call, which is in the context until it is done."""

        @functools.wraps(call)
        async def timed(*given: Given.args, **named: Given.kwargs) -> Found:
            with self:
                return await call(*given, **named)

        return timed

    @property
    def seconds(self) -> float:
        """Up to now."""
        return self._before + (time.perf_counter() - self._since if self._inside else 0.0)


class Stopwatch:
    """Times one step after another: from ``restart``, over ``received`` where it waits for a batch, to ``row``.

    What comes between a step's ``row`` and the next ``restart``, evaluations and checkpoints, belongs to no step.
    """

    def __init__(self) -> None:
        self._reading = Busy()
        self.restart()

    def restart(self) -> None:
        """A step begins, with the wait for its batch."""
        self._began = self._received = time.perf_counter()
        self._read = self._reading.seconds
        self._engine = {FORWARD: 0.0, BACKWARD: 0.0, OPTIMIZER: 0.0}

    def received(self) -> None:
        """The batch is there."""
        self._received = time.perf_counter()

    def took(self, part: str, seconds: float) -> None:
        """An engine has spent this on a call of this step."""
        self._engine[part] += seconds

    def policy(self, policy: Policy) -> "TimedPolicy":
        """The policy, every call of which is timed by its engine."""
        return TimedPolicy(policy, self)

    def sampler(self, sampler: Sampler) -> "TimedSampler":
        """A sampler that is asked for log-probabilities, timed from outside."""
        return TimedSampler(sampler, self._reading)

    def row(self, *, scoring: float | None = None) -> dict[str, float]:
        """The step is over: its parts as metrics, which add up to ``time/step``.

        ``scoring`` is the share of the drawing in which rewards were worked on; None where nothing is drawn.
        """
        waited, rest = self._received - self._began, time.perf_counter() - self._received
        drawing = {} if scoring is None else {"sample": waited * (1 - scoring), "score": waited * scoring}
        known = parts_within(self._engine, rest)
        # A reading may have queued behind the step's other calls: only what those leave open can have been its own.
        left = rest - sum(known.values())
        read = min(self._reading.seconds - self._read, left)
        parts = {**drawing, **known, FORWARD: known[FORWARD] + read, "wait": left - read}
        return {**{f"time/{name}": seconds for name, seconds in parts.items()}, "time/step": sum(parts.values())}


def parts_within(parts: Mapping[str, float], seconds: float) -> dict[str, float]:
    """The parts, scaled to the seconds that passed where calls that ran side by side took more than that."""
    total = sum(parts.values())
    return {name: part * (min(1.0, seconds / total) if total else 1.0) for name, part in parts.items()}


class TimedPolicy:
    """Satisfies ``Policy``: another one, whose engine's seconds a stopwatch is told."""

    def __init__(self, policy: Policy, watch: Stopwatch) -> None:
        self._policy = policy
        self._watch = watch

    async def forward(self, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """Timed."""
        return self._told(await self._policy.forward(data, loss))

    async def forward_backward(self, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """Timed."""
        return self._told(await self._policy.forward_backward(data, loss))

    async def optim_step(self, optimizer: AdamW, *, undoable: bool = False, empty: bool = False) -> OptimResult:
        """Timed."""
        result = await self._policy.optim_step(optimizer, undoable=undoable, empty=empty)
        self._watch.took(OPTIMIZER, result.seconds)
        return result

    async def undo(self) -> OptimResult:
        """Timed, as an optimizer step."""
        result = await self._policy.undo()
        self._watch.took(OPTIMIZER, result.seconds)
        return result

    async def sampler(self) -> Sampler:
        """The policy's own."""
        return await self._policy.sampler()

    async def save(self, name: str, *, optimizer: bool = True) -> Checkpoint:
        """Not timed: no step saves."""
        return await self._policy.save(name, optimizer=optimizer)

    async def restore(self, checkpoint: str, *, optimizer: bool) -> int:
        """Not timed: no step restores."""
        return await self._policy.restore(checkpoint, optimizer=optimizer)

    async def close(self) -> None:
        """The policy's own."""
        await self._policy.close()

    def _told(self, result: ForwardResult) -> ForwardResult:
        for part, seconds in result.seconds.items():
            self._watch.took(part, seconds)
        return result


class TimedSampler:
    """Satisfies ``Sampler``: another one, which is busy while anybody waits for it."""

    def __init__(self, sampler: Sampler, busy: Busy) -> None:
        self.policy_version = sampler.policy_version
        self._sampler = sampler
        self._busy = busy

    async def sample(self, prompt: Tokens, n: int, params: SamplingParams) -> list[Completion]:
        """Timed."""
        with self._busy:
            return await self._sampler.sample(prompt, n, params)

    async def logprobs(self, tokens: Tokens, *, temperature: float = 1.0) -> list[float | None]:
        """Timed."""
        with self._busy:
            return await self._sampler.logprobs(tokens, temperature=temperature)

    async def score(self, tokens: Tokens) -> float:
        """Timed."""
        with self._busy:
            return await self._sampler.score(tokens)

    async def read(self, request: ReadRequest) -> PromptReading:
        """Timed."""
        with self._busy:
            return await self._sampler.read(request)

    async def embed(self, tokens: Tokens, *, layer: int = -1, pooling: Pooling = "mean") -> Floats:
        """Timed."""
        with self._busy:
            return await self._sampler.embed(tokens, layer=layer, pooling=pooling)


class TimedSuite:
    """Satisfies ``Suite``: another one, which is busy while any of its environments is."""

    def __init__(self, suite: Suite, busy: Busy) -> None:
        self.name = suite.name
        self.training_task, self.heldout_tasks = suite.training_task, suite.heldout_tasks
        self._suite = suite
        self._busy = busy

    def environment(self) -> Environment:
        """The suite's own, timed."""
        return _TimedEnvironment(self._suite.environment(), self._busy)


class _TimedEnvironment:
    def __init__(self, environment: Environment, busy: Busy) -> None:
        self.reset, self.step = busy.during(environment.reset), busy.during(environment.step)
        self.close = environment.close


class TimedGames:
    """Satisfies ``GameSuite``: another one, which is busy while any of its games is."""

    def __init__(self, suite: GameSuite, busy: Busy) -> None:
        self.name, self.players = suite.name, suite.players
        self.training_task, self.heldout_tasks = suite.training_task, suite.heldout_tasks
        self._suite = suite
        self._busy = busy

    def game(self) -> Game:
        """The suite's own, timed."""
        return _TimedGame(self._suite.game(), self._busy)


class _TimedGame:
    def __init__(self, game: Game, busy: Busy) -> None:
        self.reset, self.step, self.close = busy.during(game.reset), busy.during(game.step), game.close
