"""The ranks as their driver sees them: actors in one placement group, told things together, and replaced when lost."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util import get_node_ip_address
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from fettle.cluster.hearing import Look
from fettle.cluster.looks import looks
from fettle.cluster.rank import CONTROL, DRAWING, WRITING, Answer, Facts, Rank, versions
from fettle.cluster.session import free, labelled
from fettle.cluster.shares import Said
from fettle.config import RayEngine
from fettle.errors import EngineError

logger = logging.getLogger(__name__)

LOOKED_AFTER = 2.0
"""Seconds between looks at whether those that compute are alive."""

ELSEWHERE = 5.0
"""Seconds in which there must be room for a rank that is to move."""


class Asked(NamedTuple):
    """What a rank is to say beside what it computes."""

    answer: Any
    bundle: int
    generation: int


class LostError(Exception):
    """A rank died, fell silent, or lost the others: what became of the operation under way, nobody knows."""

    def __init__(self, why: str, generation: int) -> None:
        super().__init__(why)
        self.generation = generation


class Ranks:
    """After a ``LostError`` they are of use again once ``mend`` has returned."""

    def __init__(self, settings: RayEngine, need: Mapping[str, float], made: Callable[[], tuple[Any, ...]]) -> None:
        """Each rank needs so much of the cluster; ``made`` gives what an actor is made with.

        Raises:
            EngineError: there is no room for them, or they do not begin, within ``start_seconds``; or one of them runs
                other versions than this process.
        """
        self._settings = settings
        self._need = dict(need)
        self._made = made
        labels = [dict(settings.labels)] * settings.workers
        self._room = placement_group([self._need] * settings.workers, strategy="PACK", bundle_label_selector=labels)
        self._places: dict[int, tuple[PlacementGroup, int]] = {at: (self._room, at) for at in range(settings.workers)}
        self._actors: dict[int, Any] = {}
        self.generation = 0
        self.replaced = 0
        """How many were lost and replaced so far."""
        try:
            if not self._room.wait(timeout_seconds=settings.start_seconds):
                raise EngineError(self._no_room())
            self._actors = {bundle: self._begun(bundle) for bundle in range(settings.workers)}
            self._told([actor.facts.remote() for actor in self._actors.values()], within=settings.start_seconds)
            self._meet()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._actors)

    def facts(self) -> list[Facts]:
        """Of each.

        Raises:
            LostError: a rank was lost.
        """
        return self._told([actor.facts.remote() for actor in self._actors.values()], within=None)

    def all(self, operation: str, *positional: Any, **named: Any) -> list[Answer]:
        """What an operation comes to on each rank; all but the first answer with the gist.

        Raises:
            LostError: a rank was lost.
        """
        said = ray.put((positional, named))
        asked = [actor.carry_out.remote(self.generation, operation, said) for actor in self._actors.values()]
        return self._answers(dict(zip(asked, self._actors, strict=True)))

    def each(
        self, operation: str, parts: Sequence[Said | None], *, weights: Sequence[str] = (), beside: bool = False
    ) -> list[Answer | None]:
        """What an operation comes to on each rank that has a part in it.

        Where models are parted, those that have none help to gather the ``weights`` that are read.

        Raises:
            LostError: a rank was lost.
        """
        asked = {}
        for (bundle, actor), part in zip(self._actors.items(), parts, strict=True):
            if part is not None or (weights and self._settings.sharded):
                method = actor.share.options(concurrency_group=DRAWING) if beside else actor.share
                said = None if part is None else ray.put(part)
                asked[method.remote(self.generation, operation, said, sorted(set(weights)))] = bundle
        found = dict(zip(asked.values(), self._answers(asked), strict=True))
        return [found.get(bundle) for bundle in self._actors]

    def heard(self, call: str) -> Look:
        """What they draw for a call is heard of so; on any thread."""
        return looks(lambda: list(self._actors.values()), call)

    def ask(self, method: str, *said: Any, first: bool, generation: int | None = None) -> list[Asked]:
        """Have all of them, or the ``first``, say something beside what they compute, as those of that generation."""
        since = self.generation if generation is None else generation
        chosen = list(self._actors.items())[: 1 if first else None]
        methods = [(bundle, getattr(actor, method).options(concurrency_group=WRITING)) for bundle, actor in chosen]
        return [Asked(asked.remote(since, *said), bundle, since) for bundle, asked in methods]

    def answer(self, asked: Asked) -> Answer:
        """What it says, whenever that is; called on any thread.

        Raises:
            LostError: it was lost, or the others were and all have met anew.
        """
        while True:
            ready, _ = ray.wait([asked.answer], timeout=LOOKED_AFTER)
            actor = self._actors.get(asked.bundle)
            try:
                found: Answer | None = ray.get(asked.answer) if ready else None
            except RayError as error:
                raise LostError(_why(asked.bundle, error), asked.generation) from error
            if found is not None and found.broken is None:
                return found
            if found is not None or self.generation != asked.generation or actor is None or not self._is_alive(actor):
                raise LostError(f"rank {asked.bundle} was lost as it wrote", asked.generation)

    def mend(self) -> None:
        """Replace those that are dead or silent, and have all meet anew, with nothing in them but frozen models.

        Where there is no room for another within ``start_seconds``, the others go on without.

        Raises:
            LostError: another was lost meanwhile, or none is left.
        """
        started = time.perf_counter()
        gone = [bundle for bundle, actor in self._actors.items() if not self._is_alive(actor)]
        for bundle in gone:
            ray.kill(self._actors[bundle])
            self._actors[bundle] = self._begun(bundle)
        self.replaced += len(gone)
        for bundle in gone:
            self._wait_for(bundle)
        self._meet()
        logger.warning(
            "%d of %d ranks were replaced in %.1f s; the others were kept",
            len(gone),
            len(self),
            time.perf_counter() - started,
        )

    def vacate(self, nodes: Collection[str]) -> int:
        """End those on machines with these ids that there is room for elsewhere, where ``mend`` begins them anew.

        Returns how many; the others stay for as long as their machines do.
        """
        leaving = [bundle for bundle in self._actors if self._node(bundle) in nodes]
        rooms = {
            bundle: placement_group([self._need], bundle_label_selector=[dict(self._settings.labels)])
            for bundle in leaving
        }
        until, moved = time.monotonic() + ELSEWHERE, 0
        for bundle, room in rooms.items():
            if room.wait(timeout_seconds=max(0.0, until - time.monotonic())):
                self._places[bundle] = (room, 0)
                ray.kill(self._actors[bundle])
                moved += 1
            else:
                remove_placement_group(room)
        return moved

    def close(self) -> None:
        """End them."""
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors = {}
        for room in {room.id: room for room, _ in [(self._room, 0), *self._places.values()]}.values():
            remove_placement_group(room)

    def _node(self, bundle: int) -> str | None:
        """The id of the machine that a rank is on."""
        room, index = self._places[bundle]
        found: str | None = placement_group_table(room)["bundles_to_node_id"].get(index)
        return found

    def _begun(self, bundle: int) -> Any:
        kind = ray.remote(
            num_cpus=self._need["CPU"],
            num_gpus=self._need.get("GPU", 0),
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={CONTROL: 1, DRAWING: 1, WRITING: 1},
            scheduling_strategy=PlacementGroupSchedulingStrategy(*self._places[bundle]),
        )(Rank)
        return kind.remote(*self._made(), get_node_ip_address)

    def _is_alive(self, actor: Any) -> bool:
        try:
            return bool(
                ray.get(actor.alive.options(concurrency_group=CONTROL).remote(), timeout=self._settings.silent_seconds)
            )
        except (RayActorError, GetTimeoutError):
            return False

    def _wait_for(self, bundle: int) -> None:
        """A rank that takes another's place; where it has none, there is one fewer."""
        try:
            ray.get(self._actors[bundle].facts.remote(), timeout=self._settings.start_seconds)
        except RayActorError as error:
            raise LostError(_why(bundle, error), self.generation) from error
        except GetTimeoutError as error:
            late = f"no rank took its place within {self._settings.start_seconds:g} s"
            ray.kill(self._actors[bundle])
            if len(self) == 1:
                raise LostError(f"the last rank was lost, and {late}", self.generation) from error
            del self._actors[bundle]
            logger.warning("rank %d was lost, and %s: %d go on", bundle, late, len(self))

    def _meet(self) -> None:
        """Have all of them make a new group, apart from what is left of the one before."""
        self.generation += 1
        actors = list(self._actors.values())
        facts = self.facts()
        for bundle, fact in zip(self._actors, facts, strict=True):
            _check_versions(bundle, fact)
        within = self._settings.silent_seconds
        port = self._told([actors[0].expect.remote()], within=within)[0] if len(actors) > 1 else 0
        place = (len(actors), facts[0].host, port)
        meeting = [actor.meet.remote(self.generation, rank, *place) for rank, actor in enumerate(actors)]
        self._told(meeting, within=within)

    def _told(self, asked: list[Any], *, within: float | None) -> list[Any]:
        try:
            return list(ray.get(asked, timeout=within))
        except GetTimeoutError as error:
            raise EngineError(
                f"the ranks have not begun within {within:g} s: raise engine.start_seconds and engine.silent_seconds, "
                "or look at what their machines are doing"
            ) from error
        except RayError as error:
            raise LostError(f"a rank was lost: {_cause(error)}", self.generation) from error

    def _answers(self, asked: Mapping[Any, int]) -> list[Answer]:
        """In the order in which they were asked."""
        waiting, found = dict(asked), {}
        answered = time.monotonic()
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=LOOKED_AFTER)
            for each in ready:
                bundle = waiting.pop(each)
                try:
                    found[each] = ray.get(each)
                except RayError as error:
                    raise LostError(_why(bundle, error), self.generation) from error
                if found[each].broken is not None:
                    raise LostError(f"rank {bundle} lost the others: {found[each].broken}", self.generation)
                answered = time.monotonic()
            if not ready:
                late = found and time.monotonic() - answered > self._settings.silent_seconds
                self._look_after(waiting.values(), late=bool(late))
        return [found[each] for each in asked]

    def _look_after(self, bundles: Iterable[int], *, late: bool) -> None:
        """See to it that those that are waited for are alive, and not left alone by one that has answered."""
        for bundle in bundles:
            if late or not self._is_alive(self._actors[bundle]):
                raise LostError(f"rank {bundle} does not answer", self.generation)

    def _no_room(self) -> str:
        need = ", ".join(f"{amount:g} {name}" for name, amount in self._need.items())
        settings = self._settings
        return (
            f"after {settings.start_seconds:g} s the cluster has no room{labelled(settings.labels)} for "
            f"{settings.workers} ranks that need {need} each: {free(self._need)} are free in it; lower engine.workers "
            "or engine.threads, or add a machine"
        )


def _check_versions(bundle: int, facts: Facts) -> None:
    own = versions()
    unlike = [f"{name} {facts.versions[name]}, here {own[name]}" for name in own if facts.versions[name] != own[name]]
    if unlike:
        raise EngineError(
            f"rank {bundle} on {facts.host} runs other versions than this process ({'; '.join(unlike)}): install the "
            "same on every machine of the cluster"
        )


def _why(bundle: int, error: RayError) -> str:
    return f"rank {bundle} was lost: {_cause(error)}"


def _cause(error: RayError) -> str:
    """In a few words: Ray says it at length."""
    if isinstance(error, RayActorError) and not error.actor_init_failed:
        return "its process has ended"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
