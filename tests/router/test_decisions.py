"""Decisions that are written down: no line is lost unsaid, nobody waits for one, and a replay can read them."""

import atexit
import json
import os
import threading
import uuid

import numpy as np
import pytest

from fettle.config.router import RouterRewardWeights, TasksSimulator
from fettle.config.routing import CollaborationPreferences, RoutingConfig, RoutingLog
from fettle.router import decisions as decisions_module
from fettle.router.decisions import DecisionLog
from fettle.router.modes import MODES
from fettle.router.policy import load_policy
from fettle.router.replay import estimates, read_log, within_reach
from fettle.router.routing import Router
from fettle.router.simulators import reward, simulator_of
from fettle.router.teams import Agent
from tests.disks import full_disk
from tests.router.asking import AGENTS, HARD, alerts, routed, until


def logged(folder):
    return RoutingLog(enabled=True, decisions=str(folder / "d.jsonl"), outcomes=str(folder / "o.jsonl"))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_log_that_nobody_reads_holds_nobody_and_costs_the_lines_there_is_no_room_for(
    router, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(decisions_module, "WAITING", 8)
    os.mkfifo(tmp_path / "d.jsonl")
    wanted, taken = CollaborationPreferences(budget_usd=0.015, p95_latency_s=3.0), []
    full = router(log=logged(tmp_path))

    def ask():
        taken.extend(routed(full, HARD, f"r{at}", preferences=wanted) for at in range(30))

    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    asker.join(60)
    assert len(taken) == 30
    assert all(each.source == "policy" and each.usd <= 0.015 and each.p95_s <= 3 for each in taken)
    lost = full.counts["lost"]
    assert lost in (21, 22)  # eight wait, and one more where it is being written
    [told] = alerts(caplog)
    assert told.getMessage().endswith(
        "is not written down: 8 lines wait for their file already; more such lines are only counted"
    )
    with (tmp_path / "d.jsonl").open() as pipe:
        read = [json.loads(pipe.readline()) for _ in range(30 - lost)]
        full.close()
        assert pipe.read() == ""
    kept = [int(each["request"].removeprefix("r")) for each in read]
    assert kept[:8] == [*range(8)]
    assert kept == sorted(set(kept))  # the one that was being written may have been taken late
    assert full.counts["lost"] == lost


@pytest.fixture
def decision(held):
    return routed(held["full"], HARD)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_at_the_end_a_file_that_takes_nothing_is_waited_for_a_while_and_no_longer(tmp_path, decision, caplog):
    os.mkfifo(tmp_path / "d.jsonl")
    log = DecisionLog(logged(tmp_path))
    for _ in range(5):
        log.decided(decision)
    log.close(within_s=0.05)
    assert (log.lost, len(alerts(caplog))) == (5, 1)
    with (tmp_path / "d.jsonl").open() as pipe:  # so that the thread ends
        pipe.read()


def test_a_disk_that_is_full_costs_lines_and_nothing_else(tmp_path, decision, caplog):
    log = DecisionLog(logged(tmp_path))
    with full_disk(room=512):
        for _ in range(10):
            log.decided(decision)
        until(lambda: log.lost == 10)
    log.decided(decision)
    log.close()
    cut, whole = (tmp_path / "d.jsonl").read_text().splitlines()
    assert len(cut) == 512
    assert json.loads(whole)["request"] == "one"
    assert len(alerts(caplog)) == 1


def test_whatever_an_id_or_a_name_is_its_line_has_its_text(router, tmp_path):
    class Unspeakable:
        def __str__(self):
            raise ArithmeticError("no")

    full, one, other = router(log=logged(tmp_path)), uuid.uuid4(), uuid.uuid4()
    agents = [Agent(other, np.float32(0), np.int64(1)), *AGENTS[1:]]
    full.record(full.route(HARD, agents, request=one), reward=np.float32(0.5))
    full.route(HARD, [Agent(Unspeakable()), *AGENTS], request="two")
    full.route(HARD, AGENTS, request="three")
    full.close()
    first, last = lines(tmp_path / "d.jsonl")
    assert (first["request"], first["agents"][0], last["request"]) == (str(one), str(other), "three")
    [earned] = lines(tmp_path / "o.jsonl")
    assert (earned["request"], earned["reward"]) == (str(one), 0.5)
    assert full.counts["lost"] == 1, "what cannot be put in words ends no other line"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_that_is_forked_writes_its_own_lines_and_no_other(tmp_path, decision):
    log = DecisionLog(logged(tmp_path))
    log.decided(decision)
    child = os.fork()
    if child == 0:
        log.decided(decision)
        log.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    log.close()
    assert (len(lines(tmp_path / "d.jsonl")), log.lost) == (2, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_who_forgets_to_close_it_loses_nothing_where_the_process_ends_by_itself(tmp_path):
    child = os.fork()
    if child == 0:
        atexit._clear()  # of the handlers of the tests' own process
        forgetful = Router(RoutingConfig(log=logged(tmp_path)))
        for at in range(100):
            forgetful.route({}, AGENTS, request=f"r{at}")
        atexit._run_exitfuncs()  # as the interpreter does at its end
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [line["request"] for line in lines(tmp_path / "d.jsonl")] == [f"r{at}" for at in range(100)]


def test_what_cannot_be_written_down_is_told_once_and_holds_nobody(tmp_path, router, caplog):
    (tmp_path / "file").touch()
    log = RoutingLog(enabled=True, decisions=str(tmp_path / "file" / "d.jsonl"), outcomes=str(tmp_path / "o.jsonl"))
    full = router(log=log)
    decisions = [routed(full, HARD) for _ in range(5)]
    assert decisions[0].source == "policy"
    for reward_ in (float("nan"), "much", 10**400):
        full.record(decisions[0], reward=reward_)
    full.close()
    assert (full.counts["lost"], len(alerts(caplog))) == (8, 1)


@pytest.mark.parametrize(
    "settings",
    [{"exposure": "shadow", "exploration": 0.5}, {"exposure": "canary", "canary_share": 0.5, "exploration": 0.3}],
)
def test_a_log_of_a_router_replays_to_what_another_policy_really_earns(runs, router, tmp_path, settings):
    log = RoutingLog(enabled=True, decisions=str(tmp_path / "d.jsonl"), outcomes=str(tmp_path / "o.jsonl"))
    logging_router, rng = router(log=log, **settings), np.random.default_rng(0)
    simulator, weights = simulator_of(TasksSimulator()), RouterRewardWeights()
    state = simulator.start(3000, rng)
    tasks = [dict(zip(simulator.features, row, strict=True)) for row in simulator.observations(state).tolist()]
    decisions = [routed(logging_router, task, f"r{at}") for at, task in enumerate(tasks)]
    _, terms = simulator.step(state, np.array([MODES.index(each.mode) for each in decisions]), rng)
    for decision, earned in zip(decisions, reward(terms, weights).tolist(), strict=True):
        logging_router.record(decision, reward=earned)
    logging_router.close()

    replayed = read_log(tmp_path / "o.jsonl", features=7)
    assert (len(replayed.rewards), replayed.malformed) == (3000, ())
    other = load_policy(runs / "best")
    probabilities = within_reach(replayed, other.probabilities(replayed.observations))
    truth = float((probabilities * reward(simulator.expected(state), weights)).sum(-1).mean())
    for name, found in estimates(replayed, probabilities).items():
        assert found.low < truth < found.high, name
    assert abs(replayed.rewards.mean() - truth) > 0.03  # the log's own mean is something else

    lines = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert len(lines) == 3000
    assert [line["mode"] for line in lines] == [each.mode for each in decisions]
    assert lines[0]["probabilities"].keys() == set(MODES)


def test_modes_that_were_not_to_be_had_are_not_held_against_a_policy(router, tmp_path):
    log = RoutingLog(enabled=True, decisions=str(tmp_path / "d.jsonl"), outcomes=str(tmp_path / "o.jsonl"))
    shadow = router(exposure="shadow", exploration=0.5, log=log)
    decision = routed(shadow, HARD, preferences=CollaborationPreferences(budget_usd=0.015))
    shadow.record(decision, reward=1.0)
    shadow.record(routed(shadow, HARD, confidence=1.0), reward=1.0)  # which left nothing to decide
    shadow.close()
    replayed = read_log(tmp_path / "o.jsonl", features=7)
    assert replayed.allowed.tolist() == [[1, 1, 1, 0, 0]]
    assert within_reach(replayed, np.full((1, 5), 0.2))[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0])
