"""Where a step's seconds go: parts that add up to it, in every loop; and rewards that keep no training call waiting."""

import asyncio
import inspect
import threading
from collections.abc import Mapping

import pytest

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import CausalLM, LocalEngine, PolicySpec, PreferenceRun, RewardModelRun
from fettle.engine import Policy, Sampler
from fettle.engine.local import LocalBackend
from fettle.environments import Environment, ScoringThread, SingleTurn, paying
from fettle.tracking import RunFolder
from fettle.training import Session, rl
from fettle.training.timing import Busy, Stopwatch, TimedPolicy, TimedSampler, TimedSuite, parts_within
from fettle.types import Datum, ForwardResult, Message, OptimResult, Task, datum

from . import colours, test_sft
from .conftest import Memory, small, trained
from .games import Game, length

ENGINE = {"forward", "backward", "optimizer", "wait"}
DRAWN = {"sample", "score"}


def parts(row: Mapping[str, float]) -> dict[str, float]:
    return {
        n.removeprefix("time/"): seconds for n, seconds in row.items() if n.startswith("time/") and n != "time/step"
    }


def checked(memory: Memory, names: set[str]) -> None:
    """Every step's parts are those, none is negative, and they add up to the step."""
    steps = [row for row in memory.rows if "time/step" in row]
    assert steps
    for row in steps:
        assert set(parts(row)) == names
        assert sum(parts(row).values()) == row["time/step"] > 0
        assert min(parts(row).values()) >= 0


@pytest.mark.parametrize("settings", [{}, {"max_staleness": 2}, {"preset": "ppo"}, {"loss": {"kl": {}}}], ids=str)
async def test_the_parts_of_a_reinforcement_step_add_up_to_it(tiny, tmp_path, settings):
    done = await trained(small(tiny, **settings), tmp_path, [Game(length)])
    checked(done.memory, DRAWN | ENGINE)


async def test_the_parts_of_a_supervised_step_add_up_to_it(tiny, tmp_path):
    checked(await test_sft.trained(test_sft.small(tiny), tmp_path), ENGINE)


@pytest.mark.parametrize("kind", [PreferenceRun, RewardModelRun])
async def test_the_parts_of_a_step_that_compares_add_up_to_it(tmp_path, kind):
    model = colours.painter(tmp_path / "painter")
    checked((await colours.trained(colours.small(kind, model, steps=3), tmp_path / "run")).memory, ENGINE)


class Told:
    """A policy whose engine says that its calls took these seconds."""

    def __init__(self, forward: float, backward: float, optimizer: float) -> None:
        self.result = ForwardResult(0.0, {}, [], 1, seconds={"forward": forward, "backward": backward})
        self.stepped = OptimResult(1, 0.0, seconds=optimizer)

    async def forward_backward(self, data, loss) -> ForwardResult:
        return self.result

    async def optim_step(self, optimizer, *, undoable: bool = False, empty: bool = False) -> OptimResult:
        return self.stepped


async def test_what_the_engine_says_of_its_calls_is_told_and_the_rest_is_waited():
    watch = Stopwatch()
    policy = watch.policy(Told(1e-9, 2e-9, 3e-9))
    data: list[Datum] = [datum([1, 2], [0, 1])]
    await policy.forward_backward(data, CausalLM())
    await policy.optim_step(None)
    row = watch.row()
    assert (row["time/forward"], row["time/backward"], row["time/optimizer"]) == (1e-9, 2e-9, 3e-9)
    assert row["time/wait"] > 0


async def test_seconds_that_ran_side_by_side_are_scaled_to_those_that_passed():
    watch = Stopwatch()
    policy = watch.policy(Told(1000.0, 3000.0, 0.0))
    await policy.forward_backward([], CausalLM())
    row = watch.row()
    assert row["time/backward"] == pytest.approx(3 * row["time/forward"])
    assert row["time/step"] < 1000
    assert row["time/wait"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("protocol", "timed"), [(Policy, TimedPolicy), (Sampler, TimedSampler)])
def test_who_is_timed_can_be_asked_for_all_that_the_protocol_has(protocol, timed):
    calls = {name: member for name, member in inspect.getmembers(protocol, inspect.isfunction) if name[0] != "_"}
    assert {"restore", "optim_step"} < calls.keys() or {"read", "embed", "sample"} < calls.keys()
    for name, member in calls.items():
        assert inspect.signature(getattr(timed, name)) == inspect.signature(member), name


def test_parts_that_fit_are_left_alone():
    assert parts_within({"a": 1.0, "b": 2.0}, 4.0) == {"a": 1.0, "b": 2.0}
    assert parts_within({"a": 0.0}, 0.0) == {"a": 0.0}


def test_a_step_begins_with_nothing_of_the_one_before():
    watch = Stopwatch()
    watch.took("backward", 5.0)
    watch.restart()
    assert watch.row()["time/backward"] == 0


def test_many_are_busy_no_longer_than_from_the_first_to_the_last():
    one, other, both = Busy(), Busy(), Busy()
    with both, one:
        pass
    with both, other, both:
        pass
    assert one.seconds + other.seconds <= both.seconds


async def test_a_suite_is_busy_while_its_rewards_are_at_work():
    busy = Busy()
    environment = TimedSuite(Game(length), busy).environment()
    await environment.reset(Task((Message("user", "?"),), {}, "game"))
    before = busy.seconds
    await environment.step(Message("assistant", "!"))
    assert busy.seconds > before > 0


class Patient:
    """Satisfies ``Suite``: rewards of a step wait until the engine was given what they are told to wait for."""

    name = "patient"

    def __init__(self, waits: Mapping[int, threading.Event], *, groups: int) -> None:
        self._waits, self._groups, self._thread = waits, groups, ScoringThread()

    def training_task(self, index: int) -> Task:
        return Task((Message("user", f"game {index}"),), {"step": index // self._groups}, self.name)

    def heldout_tasks(self) -> list[Task]:
        return [Task((Message("user", f"held out {index}"),), {"step": -1}, self.name) for index in range(4)]

    def environment(self) -> Environment:
        return SingleTurn(paying("patience", self._reward, self._thread))

    def _reward(self, reply: str, task: Task) -> float:
        event = self._waits.get(int(str(task.data["step"])))
        if event is not None and not event.wait(timeout=60):
            raise TimeoutError("the engine was given nothing while this reward was at work")
        return len(reply) / 10


class Watched:
    """A backend that says when it has been given its n-th training call, and its n-th batch to draw."""

    def __init__(self, backend: LocalBackend, told: Mapping[str, list[threading.Event]]) -> None:
        self._backend, self._told = backend, told

    def __getattr__(self, name: str) -> object:
        found = getattr(self._backend, name)
        if not self._told.get(name):
            return found

        def call(*args: object, **kwargs: object) -> object:
            if self._told[name]:
                self._told[name].pop(0).set()
            return found(*args, **kwargs)

        return call


async def test_the_engine_is_given_its_next_training_call_while_a_slow_reward_is_at_work(tiny, tmp_path):
    """Step 3's rewards end only once step 2 is being trained on, step 2's only once step 3 is drawn."""
    run = small(tiny, max_staleness=1, checkpoints={"every": 100}, evaluation={"every": 100, "tasks": 4}, steps=4)
    sampled, learned = [threading.Event() for _ in range(9)], [threading.Event() for _ in range(9)]
    # Drawn are the held-out tasks, steps 0 and 1 together, step 2, step 3; trained on, steps 0, 1, 2.
    suite = Patient({2: sampled[3], 3: learned[2]}, groups=run.groups_per_step)
    place, memory = RunFolder.at(tmp_path), Memory()
    backend = Watched(
        LocalBackend(LocalEngine(threads=1), checkpoints=place.checkpoints),
        {"sample": list(sampled), "forward_backward": list(learned)},
    )
    engine = Broker(backend)
    session = Session(place, memory, checkpoints=run.checkpoints, steps=run.steps, stop=asyncio.Event())
    template = Template(load_tokenizer(str(PolicySpec(model=tiny).model)))
    try:
        await rl.train(run, engine=engine, suites=[suite], template=template, session=session)
    finally:
        engine.close()
    assert memory.column("rollout/failed") == [0.0] * 4
    assert sampled[3].is_set()
    assert learned[2].is_set()
