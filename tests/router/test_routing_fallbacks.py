"""Nothing that goes wrong with a policy or a request reaches whoever asks: the fixed mode is taken."""

import hashlib
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from fettle.router import loading
from fettle.router.files import POLICY, arrays_as_bytes
from fettle.router.policy import load_policy
from fettle.router.registry import IN_USE, folder_of
from fettle.router.teams import Agent
from tests.router.asking import AGENTS, HARD, alerts, routed, until


def no_pointer(registry):
    (registry / IN_USE).unlink()


def no_registry(registry):
    shutil.rmtree(registry)


def damaged_pointer(registry):
    (registry / IN_USE).write_text('{"version": 2')


def damaged_policy(registry):
    altered(registry, b"PK\x03\x04")


def other_hash(registry):
    policy = load_policy(folder_of(registry, 2))
    altered(registry, arrays_as_bytes({**policy.arrays, "policy_b": policy.arrays["policy_b"] + 1}))


def no_policy(registry):
    (folder_of(registry, 2) / POLICY).unlink()


def altered(registry, contents):
    path = folder_of(registry, 2) / POLICY
    path.chmod(0o644)
    path.write_bytes(contents)


HARMS = {
    no_pointer: "cannot be read (No such file or directory)",
    no_registry: "cannot be read (No such file or directory)",
    damaged_pointer: "in_use.json is damaged",
    damaged_policy: "is not the file that was promoted",
    other_hash: "is not the file that was promoted",
    no_policy: "cannot be read (No such file or directory)",
}


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_policy_that_cannot_be_used_is_one_alert_and_the_fixed_mode(registry, router, caplog, harm):
    harm(registry)
    full = router()
    decisions = [routed(full, HARD, f"r{at}") for at in range(50)]
    assert {(each.mode, each.source, each.propensity) for each in decisions} == {("consult", "fallback", 1.0)}
    assert HARMS[harm] in decisions[0].why
    assert len(alerts(caplog)) == 1
    assert (full.counts["fallback"], full.counts["alerts"]) == (50, 1)


def shadowed(router, folder, change=None):
    """A router in shadow of a run's folder, some of whose arrays were changed."""
    if change is not None:
        policy = load_policy(folder)
        contents = arrays_as_bytes({**policy.arrays, **change})
        (folder / POLICY).write_bytes(contents)
        _rehashed(folder, contents)
    return router(exposure="shadow", policy=str(folder))


def _rehashed(folder, contents):
    metadata = json.loads((folder / "metadata.json").read_text())
    changed = {**metadata, "policy_sha256": hashlib.sha256(contents).hexdigest()}
    (folder / "metadata.json").write_text(json.dumps(changed))


@pytest.fixture
def folder(runs, tmp_path):
    return Path(shutil.copytree(runs / "best", tmp_path / "run"))


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"policy_w": np.full((7, 5), 3e38, np.float32)}, "says numbers that are not finite"),
        ({"policy_w": np.full((7, 5), np.nan, np.float32)}, "holds numbers that are not finite"),
        ({"policy_w": np.zeros((4, 5), np.float32)}, "holds arrays of shapes"),
    ],
)
def test_numbers_and_shapes_that_cannot_be_are_the_fixed_mode(folder, router, caplog, change, reason):
    shadow = shadowed(router, folder, change)
    decisions = [routed(shadow, HARD) for _ in range(5)]
    assert {each.source for each in decisions} == {"fallback"}
    assert reason in decisions[0].why
    assert len(alerts(caplog)) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_files_that_hang_hold_nobody_and_are_not_opened_again_while_they_do(registry, router, caplog, monkeypatch):
    full = router(retry_s=0.01, reload_s=0.0, time_limit_s=0.5)
    until(lambda: routed(full, HARD).source == "policy")
    monkeypatch.setattr(loading, "LOAD_S", 0.5)
    threads = threading.active_count()
    (registry / IN_USE).rename(registry / "kept")
    os.mkfifo(registry / IN_USE)  # reading it waits for somebody to write
    until(lambda: routed(full, HARD).source == "fallback")
    hung = [routed(full, HARD) for _ in range(200)]
    assert {each.why for each in hung} == {"its files took longer than 0.5 s to be read"}
    assert threading.active_count() <= threads + 1
    (registry / IN_USE).rename(registry / "pipe")
    (registry / "kept").rename(registry / IN_USE)
    (registry / "pipe").write_bytes(b"{}")  # whoever waits there reads on
    until(lambda: routed(full, HARD).source == "policy")
    assert next(each.getMessage().rpartition(": ")[2] for each in alerts(caplog)) == hung[0].why


def test_a_request_without_a_feature_is_its_own_fault_and_not_the_policys(router, caplog):
    full = router()
    missing = {name: value for name, value in HARD.items() if name != "stakes"}
    wrong = routed(full, missing)
    assert (wrong.source, wrong.why) == ("fallback", "the request has no feature stakes, which the policy reads")
    for value in (float("nan"), float("inf"), 3e38, True, "high"):
        assert "feature stakes is" in routed(full, {**HARD, "stakes": value}).why
    assert routed(full, HARD).source == "policy"
    assert alerts(caplog) == []


class Unspeakable:
    """It cannot be told of, compared or read."""

    def __str__(self):
        raise ArithmeticError("no")

    __repr__ = __float__ = __bool__ = __ge__ = __iter__ = __hash__ = __str__


@pytest.mark.parametrize(
    ("asked", "source", "why"),
    [
        ({"confidence": "0.9"}, "fallback", "the confidence is of type str: it must be a number from 0 to 1"),
        ({"confidence": Unspeakable()}, "fallback", "the confidence is of type Unspeakable: it must be"),
        ({"request": Unspeakable()}, "fallback", "the request cannot be read (ArithmeticError)"),
        ({"task": None}, "fallback", "the request cannot be read (TypeError)"),
        ({"task": Unspeakable()}, "fallback", "the request cannot be read (TypeError)"),
        ({"task": {**HARD, "stakes": Unspeakable()}}, "fallback", "feature stakes is of type Unspeakable: it must be"),
        ({"task": {**HARD, "stakes": 10**5000}}, "fallback", "feature stakes is of type int: it must be a number of"),
        ({"task": {1: 2, "x" * 10**6: 3, **dict.fromkeys(range(10**5), 4)}}, "fallback", "has no feature difficulty"),
        ({"agents": None}, "nothing", "what the request says of agents and preferences cannot be read (TypeError)"),
        ({"agents": [Unspeakable()]}, "nothing", "agent 1 of the request is of type Unspeakable: give an Agent"),
        ({"preferences": {"mode": "solo"}}, "nothing", "of agents and preferences cannot be read (AttributeError)"),
    ],
)
def test_a_request_that_cannot_be_read_is_given_a_mode_or_none_and_no_exception(held, caplog, asked, source, why):
    request = {"task": HARD, "agents": AGENTS, "request": "one", **asked}
    decision = held["full"].route(request.pop("task"), request.pop("agents"), **request)
    assert decision.source == source
    assert decision.mode == ("consult" if source == "fallback" else None)
    assert why in decision.why
    assert routed(held["full"], HARD).source == "policy", "the next is asked all the same"
    assert alerts(caplog) == []


def test_numbers_of_other_kinds_are_numbers(held):
    task = {name: np.float32(value) for name, value in HARD.items()}
    agents = [Agent("local", np.float64(0), np.int64(1)), Agent("a", np.float32(0.25), np.float32(2))]
    decision = held["full"].route(task, agents, request="one", confidence=np.float32(0.1))
    assert decision.source == "policy"
    assert decision.opinion.observation["difficulty"] == pytest.approx(0.9)
    assert held["full"].route(task, agents, request="one", confidence=np.float32(0.9)).source == "preference"
    assert type(agents[1].usd) is type(decision.usd) is type(decision.p95_s) is float
