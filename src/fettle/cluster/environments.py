"""Environments on a Ray cluster: processes that play episodes, and may die."""

import asyncio
import itertools
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

import fettle
from fettle.cluster.joining import Joining
from fettle.cluster.session import connected, free, labelled
from fettle.config import EnvironmentConfig, RayWorkers
from fettle.environments import Environment, Game, GameStep, GameSuite, StepResult, Suite
from fettle.environments.hosting import Begun, Fault, Host, Ready
from fettle.errors import EngineError, EnvironmentFault, by_code
from fettle.types import Task

logger = logging.getLogger(__name__)

LIVES = 3
"""Processes that may be lost under one episode before it has failed."""

ENDED = "the process that played the episode ended"
ONCE = "and its environment does not say that it can be repeated"
MEND = "let it depend on the task and the replies alone, or do not call it repeatable"
TOO_MANY = f"{LIVES} processes in turn ended while they played the episode: see what ends them"


class LostError(Exception):
    """The process that was asked has ended; whether it did what it was asked, nobody knows."""


@dataclass(slots=True, eq=False)
class Worker:
    """A process that plays."""

    place: int
    actor: Any
    episodes: int = 0
    """Under way in it."""
    lost: bool = False


class EnvironmentWorkers:
    """Processes that make the ``worlds`` and play their episodes. One that is lost is replaced.

    Raises:
        UnreachableError: there is no cluster at the address, or none can be started.
        EngineError: the cluster has no room for them within ``start_seconds``, or one runs another version.
        FettleError: one of them cannot make an environment.
    """

    def __init__(self, settings: RayWorkers, worlds: Sequence[EnvironmentConfig]) -> None:
        self._settings = settings
        self._given = (tuple(worlds), str(Path.cwd()))
        self._numbers = itertools.count()
        self.joining = Joining(settings.joined_seconds)
        self.replaced = 0
        """How many were lost so far."""
        room = max(1, math.ceil(settings.count * settings.cpus))
        self._leave = connected(settings, processors=room, named="environment_workers")
        self.workers: list[Worker] = []
        try:
            self.workers = [Worker(place, self._begun()) for place in range(settings.count)]
            self._check_ready()
        except BaseException:
            self.close()
            raise

    def suite(self, world: int, tasks: Suite | GameSuite) -> Suite | GameSuite:
        """The same tasks, whose episodes are played by the workers, in the world with that number."""
        return PlayedGames(self, world, tasks) if isinstance(tasks, GameSuite) else PlayedSuite(self, world, tasks)

    def close(self) -> None:
        """End them, and a cluster that was begun for them."""
        for worker in self.workers:
            ray.kill(worker.actor)
        self._leave()

    def taken(self) -> tuple[Worker, int]:
        """A worker with as few episodes as any, for one more, and that one's number."""
        worker = min(self.workers, key=lambda each: each.episodes)
        worker.episodes += 1
        return worker, next(self._numbers)

    async def asked(self, worker: Worker, method: str, *given: Any) -> Any:
        """What the worker answers.

        Raises:
            EnvironmentFault: it, or the environment, could not.
            LostError: the worker has ended, and another has its place.
        """
        if worker.lost:
            raise LostError
        ref = getattr(worker.actor, method).remote(*given)
        try:
            answer = await ref
        except asyncio.CancelledError:
            ray.cancel(ref)
            raise
        except RayTaskError as error:
            raise EnvironmentFault(f"what the environment said could not be sent: {error.cause}") from error
        except RayError as error:  # the process has ended, or its machine went with what it had answered
            self._replace(worker)
            raise LostError from error
        if isinstance(answer, Fault):
            raise by_code(answer.code)(answer.message) if answer.code else EnvironmentFault(answer.message)
        return answer

    def _replace(self, worker: Worker) -> None:
        if worker.lost:
            return
        worker.lost = True
        ray.kill(worker.actor)
        self.replaced += 1
        self.workers[worker.place] = Worker(worker.place, self._begun())
        logger.warning("environment worker %d ended, with %d episodes; another begins", worker.place, worker.episodes)

    def _begun(self) -> Any:
        kind = ray.remote(
            num_cpus=self._settings.cpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=self._settings.episodes,
            label_selector=dict(self._settings.labels),
        )(Host)
        return kind.remote(*self._given)

    def _check_ready(self) -> None:
        within = self._settings.start_seconds
        try:
            answers: list[Ready | Fault] = ray.get([w.actor.ready.remote() for w in self.workers], timeout=within)
        except GetTimeoutError as error:
            raise EngineError(
                f"after {within:g} s not all of {self._settings.count} environment workers have begun, each of which "
                f"takes {self._settings.cpus:g} CPU{labelled(self._settings.labels)}: {free({'CPU': 1})} are free in "
                "the cluster; lower environment_workers.cpus or .count, or raise .start_seconds"
            ) from error
        except RayActorError as error:
            raise EngineError(f"an environment worker ended before it began: {str(error).splitlines()[0]}") from error
        for answer in answers:
            if isinstance(answer, Fault):
                raise by_code(answer.code)(f"in an environment worker, {answer.message}")
            if answer.version != fettle.__version__:
                raise EngineError(
                    f"an environment worker runs fettle {answer.version}, and this is {fettle.__version__}: install "
                    "the same on every machine of the cluster"
                )


class Episode:
    """One episode at a worker. Where that is lost, another plays it again up to where it was, if that may be done.

    It may where its environment says that it can be repeated, or was not stepped yet; otherwise the episode has failed.
    """

    def __init__(self, workers: EnvironmentWorkers, world: int) -> None:
        self._workers, self._world = workers, world
        self._task: Task | None = None
        self._worker: Worker | None = None
        self._number = -1
        self._begun: Begun | None = None
        self._past: list[tuple[Any, Any]] = []
        """What was said so far, and what was answered."""

    async def reset(self, task: Task) -> Any:
        """Begin ``task``."""
        if self._task is not None:
            raise EnvironmentFault(
                f"an environment plays one episode, and this one has begun task {self._task.id}: make another"
            )
        self._task = task
        self._begun = await self._workers.joining.run(self._outliving())
        return self._begun.first

    async def step(self, action: Any) -> Any:
        """Take what was said."""
        if self._begun is None:
            raise EnvironmentFault("there is no episode to step: reset a new environment with a task first")
        return await self._workers.joining.run(self._stepped(self._begun, action))

    async def close(self) -> None:
        """Give everything back; what a lost worker held has gone with it."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        worker.episodes -= 1
        with suppress(LostError):
            await self._workers.asked(worker, "close", self._number)

    async def _outliving(self) -> Begun:
        """Where a worker is lost before it has begun, another begins: nothing has been done yet."""
        for _ in range(LIVES):
            with suppress(LostError):
                return await self._opened()
        raise EnvironmentFault(TOO_MANY)

    async def _opened(self) -> Begun:
        if self._worker is not None:
            self._worker.episodes -= 1
        self._worker, self._number = self._workers.taken()
        begun: Begun = await self._asked("reset", self._world, self._task)
        return begun

    async def _stepped(self, begun: Begun, action: Any) -> Any:
        for _ in range(LIVES):
            with suppress(LostError):
                if self._worker is None or self._worker.lost:
                    await self._play_again(begun)
                try:
                    answer = await self._asked("step", action)
                except LostError:
                    if begun.repeatable:
                        raise
                    raise EnvironmentFault(f"{ENDED} during a step, which may have been made, {ONCE}") from None
                self._past.append((action, answer))
                return answer
        raise EnvironmentFault(TOO_MANY)

    async def _play_again(self, begun: Begun) -> None:
        """Begin anew, and say all that was said: it must be answered as it was."""
        if self._past and not begun.repeatable:
            raise EnvironmentFault(f"{ENDED}, and with it what {len(self._past)} steps had come to, {ONCE}")
        if (await self._opened()).first != begun.first:
            raise EnvironmentFault(f"{ENDED}, and the task begins otherwise when it is played again: {MEND}")
        for said, answered in self._past:
            if _without_numbers(await self._asked("step", said)) != _without_numbers(answered):
                raise EnvironmentFault(f"{ENDED}, and the episode goes otherwise when it is played again: {MEND}")

    async def _asked(self, method: str, *given: Any) -> Any:
        assert self._worker is not None
        return await self._workers.asked(self._worker, method, self._number, *given)


def _without_numbers(answer: StepResult | GameStep) -> StepResult | GameStep:
    """What counts of an answer: not what was only measured, such as how long something took."""
    return replace(answer, measured={})


class PlayedSuite:
    """Satisfies ``Suite``: another one, whose episodes are played by workers."""

    def __init__(self, workers: EnvironmentWorkers, world: int, suite: Suite) -> None:
        self.name = suite.name
        self.training_task, self.heldout_tasks = suite.training_task, suite.heldout_tasks
        self._workers, self._world = workers, world

    def environment(self) -> Environment:
        """One at a worker."""
        return Episode(self._workers, self._world)


class PlayedGames:
    """Satisfies ``GameSuite``, as :class:`PlayedSuite` does ``Suite``."""

    def __init__(self, workers: EnvironmentWorkers, world: int, suite: GameSuite) -> None:
        self.name, self.players = suite.name, suite.players
        self.training_task, self.heldout_tasks = suite.training_task, suite.heldout_tasks
        self._workers, self._world = workers, world

    def game(self) -> Game:
        """One at a worker."""
        return Episode(self._workers, self._world)
