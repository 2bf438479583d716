"""What a run bears of a cluster: fewer ranks and more, machines that go, and what is refused, with nothing left."""

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from benchmarks.cluster_faults import followed, rows
from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.cluster import session
from fettle.cluster.actors import begun
from fettle.cluster.ranks import Ranks
from fettle.config import ActorSamplers, CausalLM, LocalEngine, LoRA, PolicySpec, RayEngine
from fettle.engine.local import LocalBackend
from fettle.environments import suite
from fettle.errors import CheckpointError, EngineError, UnreachableError
from fettle.tracking import RunFolder
from fettle.training import Session, rl
from tests.cli.conftest import furnished, typed
from tests.training.conftest import Memory

from .ranks import ROOM, cleared, ranks, ray_here
from .test_backend import RUNS, UNLIKE, USUAL, model

__all__ = ["model"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with ray_here(), ranks(2, tmp_path_factory.mktemp("ranks")) as backend:
        yield backend


class StopAfter:
    """A callback that asks a run to stop."""

    def __init__(self, steps: int | None) -> None:
        self.stop, self._steps = asyncio.Event(), steps

    def after_step(self, step: int, row) -> bool:
        if step == self._steps:
            self.stop.set()
        return False

    def after_evaluation(self, step: int, score: float, row) -> bool:
        return False


async def gone_on(run, backend, folder: RunFolder, steps: int | None = None) -> list[dict[str, float]]:
    """The rows of a run from where its folder stands, stopped after so many steps."""
    memory, heed, broker = Memory(), StopAfter(steps), Broker(backend)
    place = Session(folder, memory, checkpoints=run.checkpoints, steps=run.steps, stop=heed.stop, callbacks=[heed])
    template = Template(load_tokenizer(str(run.policy.model)))
    await rl.train(
        run, engine=broker, suites=[suite(each) for each in run.environments], template=template, session=place
    )
    broker.close()
    return memory.rows


async def test_a_checkpoint_of_two_ranks_is_gone_on_from_by_one_and_the_other_way(two, model, tmp_path):
    """One rank computes to the bits of the local engine, which stands for it here."""
    kind, settings = RUNS["ppo with a critic"]
    run = kind.model_validate({**USUAL, **settings, "steps": 4, "policy": {"model": model}})
    expected = await gone_on(
        run, LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path / "a"), RunFolder.at(tmp_path / "r")
    )
    for number, two_first in enumerate((True, False)):
        one = LocalBackend(LocalEngine(threads=1), checkpoints=cleared(two)._checkpoints)
        (tmp_path / f"run-{number}").mkdir()
        (tmp_path / f"run-{number}" / "checkpoints").symlink_to(two._checkpoints)
        folder = RunFolder.at(tmp_path / f"run-{number}")
        first, then = (two, one) if two_first else (one, two)
        rows = [*await gone_on(run, first, folder, 2), *await gone_on(run, then, folder)]
        assert [row["step"] for row in rows] == [row["step"] for row in expected]
        for row, other in zip(rows, expected, strict=True):
            for metric in [metric for metric in other if not metric.startswith(UNLIKE)]:
                close = 1e-4 if metric.endswith(("grad_norm", "explained_variance")) else 2e-6
                assert row[metric] == pytest.approx(other[metric], rel=close, abs=close), metric


def test_a_checkpoint_of_another_model_is_refused_and_the_ranks_go_on(two, model):
    backend = cleared(two)
    before = backend.replaced
    backend.create_policy("adapter", PolicySpec(model=model, lora=LoRA(rank=4)))
    saved = backend.save("adapter", "saved", optimizer=False).result()
    backend.create_policy("whole", PolicySpec(model=model))
    with pytest.raises(CheckpointError, match="of another kind of policy"):
        backend.restore("whole", saved.path, optimizer=False)
    assert backend.forward("whole", rows(1), CausalLM()).num_tokens > 0
    assert backend.replaced == before


def processes() -> set[int]:
    """Of actors that live."""
    found = set()
    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "ray::" in (called := " ".join(each.cmdline())) and "IDLE" not in called:
                found.add(each.pid)
    return found


def test_samplers_that_there_is_no_room_for_are_told_and_none_is_left(two):
    before, free = processes(), ray.available_resources()["CPU"]
    soon = RayEngine(start_seconds=0.2)
    with pytest.raises(EngineError, match=r"after 0.2 s sampler 0 has not begun, which needs 64 CPU: \d of 5 CPU are"):
        begun(ActorSamplers(count=2, threads=64), soon)
    with pytest.raises(EngineError, match=r"which needs 1 CPU on machines labelled zone=elsewhere: \d of 5 CPU are"):
        begun(ActorSamplers(labels={"zone": "elsewhere"}), soon)
    assert processes() <= before
    assert ray.available_resources()["CPU"] == free


class AtAnOlder:
    """Settings that make the process they come to another version's."""

    def __init__(self, settings: LocalEngine) -> None:
        self._settings = settings

    def __reduce__(self):
        return as_older, (self._settings,)


def as_older(settings: LocalEngine) -> LocalEngine:
    import fettle  # noqa: PLC0415

    fettle.__version__ = "0.0.1"
    return settings


def test_a_rank_of_another_version_is_refused_and_none_is_left(two, tmp_path):
    before = processes()
    settings = RayEngine(workers=1, threads=1, start_seconds=250)
    with pytest.raises(EngineError, match=r"rank 0 on \S+ runs other versions .*\(fettle 0.0.1, here "):
        Ranks(settings, {"CPU": 1.0}, lambda: (AtAnOlder(LocalEngine(threads=1)), tmp_path, False))
    until = time.monotonic() + 10
    while processes() - before:
        assert time.monotonic() < until


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:{mute}", "where no cluster of Ray answers (timed out): start one with `ray start --head`"),
        ("ray://127.0.0.1:{closed}", "where no cluster of Ray answers (Connection refused)"),
        ("nobody.invalid:6379", "where no cluster of Ray answers"),
        ("here", "write auto, HOST:PORT or ray://HOST:PORT"),
    ],
)
def test_an_address_where_nobody_answers_is_refused_at_once(address, said, monkeypatch):
    monkeypatch.setattr(session, "REACHED_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute, socket.create_server(("127.0.0.1", 0)) as other:
        closed = other.getsockname()[1]
        other.close()
        with pytest.raises(UnreachableError) as refused:
            session.check_reached(address.format(mute=mute.getsockname()[1], closed=closed), named="engine.address")
    assert refused.value.message.startswith("engine.address is ")
    assert said in refused.value.message


def test_environment_workers_without_ray_are_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "fettle.cluster.environments", raising=False)
    desk = furnished(tmp_path)
    for verb in ("plan", "train"):
        ended = typed(verb, "tiny.yaml", "environment_workers={type: ray}", into=desk)
        assert ended.code == 2
        assert "environment_workers.type is ray, and Ray is not installed: pip install 'fettle[cluster]'" in ended.err
    assert not list((desk / "runs").glob("*"))


def test_who_heard_sigterm_before_ray_began_hears_it_still():
    def own(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, own)
    try:
        with session.heard():
            signal.signal(signal.SIGTERM, lambda *_: None)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_notice_has_all_written_down_and_moves_the_ranks_that_there_is_room_for(two, model):
    """All are on one machine here, which is told to go, and has room for one of them anew."""
    backend, spec = cleared(two), PolicySpec(model=model, lora=LoRA(rank=4))
    expected = followed(backend, "undisturbed", spec)
    backend.create_policy("other", spec)
    first, second = (fact.pid for fact in backend.facts())
    taken = placement_group([{"CPU": 1}] * (ROOM - len(backend.facts()) - 1))
    assert taken.wait(30)
    [here] = {node["NodeID"] for node in ray.nodes()}
    backend._warned(frozenset({here}))
    remove_placement_group(taken)
    [operation] = backend._recall.operations()
    assert operation.operation == "revive"
    assert backend.statistics()["ranks_replaced"] == 1
    assert {first, second} & {fact.pid for fact in backend.facts()} == {second}
    assert repr(followed(backend, "moved", spec)) == repr(expected)
