"""A router in use: what it decides, that caps hold, that nothing which goes wrong reaches whoever asks."""

import hashlib
import json
import logging
import os
import shutil
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.config import load_as
from fettle.config.router import RouterRewardWeights, TasksSimulator
from fettle.config.routing import CollaborationPreferences, PromotionGate, RoutingConfig, RoutingLog
from fettle.errors import ConfigError
from fettle.router.files import POLICY, arrays_as_bytes
from fettle.router.modes import MODES
from fettle.router.policy import load_policy
from fettle.router.promotion import promote, rollback
from fettle.router.registry import IN_USE, folder_of
from fettle.router.replay import estimates, read_log, within_reach
from fettle.router.routing import Router
from fettle.router.simulators import reward, simulator_of
from fettle.router.tasks import Tasks
from fettle.router.teams import Agent

GATE = PromotionGate(seeds=4, episodes=128)
AGENTS = [Agent("local", 0, 1), Agent("a", 0.01, 2), Agent("b", 0.01, 2)]
HARD = dict.fromkeys(Tasks.features, 0.5) | {"difficulty": 0.9, "stakes": 0.9, "budget": 1.0, "deadline": 1.0}
EASY = dict.fromkeys(Tasks.features, 0.5) | {"difficulty": 0.0, "stakes": 0.1, "skill": 1.0, "traffic": 1.0}
PATIENT = {"time_limit_s": 60.0, "retry_s": 3600.0, "reload_s": 0.0}
"""A busy machine is no failure."""


@pytest.fixture(scope="module")
def registries(runs, tmp_path_factory):
    """A registry whose second version is in use."""
    registry = tmp_path_factory.mktemp("registry") / "registry"
    for name in ("better", "best"):
        promote(runs / name, registry, who="me", gate=GATE)
    return registry


@pytest.fixture
def registry(registries, tmp_path):
    """One that may be changed."""
    return Path(shutil.copytree(registries, tmp_path / "registry"))


@pytest.fixture
def router(registry):
    """``router(exposure="full")``: over the registry; closed at the end."""
    made = []

    def make(**settings):
        config = RoutingConfig(**{"registry": str(registry), "exposure": "full", **PATIENT, **settings})
        made.append(Router(config))
        return made[-1]

    yield make
    for each in made:
        each.close()


def routed(router, task, request="one", **wanted):
    return router.route(task, AGENTS, request=request, **wanted)


def alerts(caplog):
    return [record for record in caplog.records if record.levelno == logging.ERROR]


def test_as_it_stands_no_policy_is_loaded_and_nothing_is_begun_or_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = threading.active_count()
    monkeypatch.setattr(socket, "socket", None)
    decision = Router().route(HARD, AGENTS, request="one")
    assert (decision.mode, decision.source, decision.why) == ("consult", "fixed", "exposure is fixed")
    assert (decision.opinion, decision.propensity) == (None, 1.0)
    assert [agent.name for agent in decision.agents] == ["local", "a"]
    assert threading.active_count() <= before
    assert list(tmp_path.iterdir()) == []


def test_a_policy_that_is_in_use_takes_more_agents_for_a_task_that_needs_them(router):
    full = router()
    easy, hard = routed(full, EASY), routed(full, HARD)
    assert MODES.index(hard.mode) > MODES.index(easy.mode)
    for decision in (easy, hard):
        assert decision.source == "policy"
        assert decision.mode == max(decision.opinion.probabilities, key=decision.opinion.probabilities.get)
        assert (decision.opinion.version, decision.propensity) == (2, 1.0)


def test_the_contributions_of_a_linear_policy_make_up_its_probabilities(router):
    said = routed(router(), HARD).opinion
    logits = np.array([sum(row[mode] for row in said.contributions.values()) for mode in MODES])
    odds = np.exp(logits - logits.max())
    np.testing.assert_allclose(list(said.probabilities.values()), odds / odds.sum(), atol=1e-6)
    assert set(said.contributions) == {*Tasks.features, "bias"}


def test_a_shadow_takes_the_fixed_mode_and_says_what_the_policy_would_take(router):
    decision = routed(router(exposure="shadow"), HARD)
    liked = max(decision.opinion.probabilities, key=decision.opinion.probabilities.get)
    assert (decision.mode, decision.source) == ("consult", "fixed")
    assert liked != "consult"
    assert decision.why == f"exposure is shadow, and the policy would take {liked}"


def test_a_canary_follows_the_policy_for_its_share_and_a_request_always_on_one_side(router):
    canary = router(exposure="canary", canary_share=0.2)
    sources = {f"r{at}": routed(canary, HARD, f"r{at}").source for at in range(2000)}
    share = Counter(sources.values())["policy"] / len(sources)
    assert 0.16 < share < 0.24
    again = {request: routed(canary, EASY, request).source for request in list(sources)[:50]}
    assert again == dict(list(sources.items())[:50])
    more = router(exposure="canary", canary_share=0.4)
    assert all(routed(more, HARD, name).source == "policy" for name, source in sources.items() if source == "policy")


amounts = st.one_of(st.just(0.0), st.floats(0, 100), st.sampled_from([0.1, 0.2, 0.3, 0.6]))


@given(
    agents=st.lists(st.builds(Agent, st.just("agent"), amounts, amounts), max_size=5),
    wanted=st.builds(
        CollaborationPreferences,
        mode=st.sampled_from([str(mode) for mode in MODES]),
        depth=st.integers(0, 3),
        auto=st.booleans(),
        ask_online=st.booleans(),
        budget_usd=amounts,
        p95_latency_s=amounts,
    ),
    exposure=st.sampled_from(["fixed", "shadow", "canary", "full"]),
    task=st.one_of(
        st.fixed_dictionaries({name: st.floats(0, 1) for name in Tasks.features}),
        st.dictionaries(st.sampled_from(Tasks.features), st.floats()),
    ),
    confidence=st.none() | st.floats(),
    request=st.text(max_size=3),
)
def test_whatever_is_asked_no_cap_is_ever_exceeded(held, agents, wanted, exposure, task, confidence, request):
    decision = held[exposure].route(task, agents, request=request, preferences=wanted, confidence=confidence)
    if decision.mode is None:
        assert (decision.agents, decision.source) == ((), "nothing")
        assert set(decision.ruled_out) == set(MODES)
        assert decision.why.startswith("no mode fits: solo: ")
        return
    assert decision.usd == pytest.approx(decision.rounds * sum(agent.usd for agent in decision.agents))
    assert decision.usd <= wanted.budget_usd
    assert decision.p95_s <= wanted.p95_latency_s
    assert all(decision.rounds * agent.p95_s <= wanted.p95_latency_s for agent in decision.agents)
    assert decision.mode not in decision.ruled_out
    assert 0 < decision.propensity <= 1
    if not wanted.ask_online or wanted.depth == 0:
        assert len(decision.agents) == 1


@pytest.fixture(scope="module")
def held(registries):
    """A router for each exposure."""
    settings = {"registry": str(registries), "exploration": 0.3, "canary_share": 0.5, **PATIENT}
    routers = {
        exposure: Router(RoutingConfig(exposure=exposure, **settings))
        for exposure in ("fixed", "shadow", "canary", "full")
    }
    yield routers
    for each in routers.values():
        each.close()


def test_an_id_may_be_any_text(held):
    for request in ("", "\ud800", "a/b\n"):
        assert routed(held["canary"], HARD, request).mode in MODES


def test_preferences_leave_no_choice_where_they_say_so(router):
    full = router()
    assert routed(full, HARD).mode != "consult"
    manual = routed(full, HARD, preferences=CollaborationPreferences(auto=False))
    assert (manual.mode, manual.source) == ("consult", "preference")
    alone = routed(full, HARD, preferences=CollaborationPreferences(ask_online=False))
    assert (alone.mode, len(alone.ruled_out)) == ("solo", 4)
    assert routed(full, HARD, preferences=CollaborationPreferences(depth=0)).mode == "solo"


def test_one_who_is_confident_answers_alone_from_the_threshold_on_and_where_the_strategy_is_that(router):
    full = router()
    confident = routed(full, HARD, confidence=0.7)
    assert (confident.mode, confident.source) == ("solo", "preference")
    assert routed(full, HARD, confidence=0.69).source == "policy"
    assert routed(full, HARD, confidence=0.7, preferences=CollaborationPreferences(confidence_threshold=0.8)).mode != (
        "solo"
    )
    routed_all_the_same = CollaborationPreferences(answer_strategy="as_routed")
    assert routed(full, HARD, confidence=1.0, preferences=routed_all_the_same).source == "policy"


def test_budget_and_latency_are_features_where_the_request_has_none(router):
    task = {name: value for name, value in HARD.items() if name not in ("budget", "deadline")}
    wanted = CollaborationPreferences(budget_usd=0.25, p95_latency_s=400.0)
    seen = routed(router(), task, preferences=wanted).opinion.observation
    assert (seen["budget"], seen["deadline"]) == (0.25, 1.0)
    assert routed(router(), HARD, preferences=wanted).opinion.observation["budget"] == 1.0


def test_the_policy_takes_its_likeliest_mode_of_those_that_fit(router):
    decision = routed(router(), HARD, preferences=CollaborationPreferences(budget_usd=0.015))
    odds = decision.opinion.probabilities
    assert set(decision.ruled_out) == {"consensus", "swarm"}
    assert decision.mode == max(("solo", "consult", "collaborate"), key=odds.get)


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


def test_a_run_that_was_never_promoted_may_only_be_shadowed(folder, router):
    decision = routed(shadowed(router, folder), HARD)
    assert (decision.source, decision.opinion.version) == ("fixed", None)
    for exposure in ("canary", "full"):
        with pytest.raises(ValueError, match="which no gate has passed"):
            RoutingConfig(exposure=exposure, policy="run")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_files_that_hang_hold_nobody_and_are_not_opened_again_while_they_do(registry, router, caplog):
    full = router(time_limit_s=0.05, retry_s=0.01)
    assert routed(full, HARD).source in ("policy", "fallback")
    threads = threading.active_count()
    (registry / IN_USE).rename(registry / "kept")
    os.mkfifo(registry / IN_USE)  # reading it waits for somebody to write
    _until(lambda: routed(full, HARD).source == "fallback")
    hung = [routed(full, HARD) for _ in range(200)]
    assert {each.why for each in hung} == {"it took longer than 0.05 s"}
    assert threading.active_count() <= threads
    (registry / IN_USE).rename(registry / "pipe")
    (registry / "kept").rename(registry / IN_USE)
    (registry / "pipe").write_bytes(b"{}")  # whoever waits there reads on
    _until(lambda: routed(full, HARD).source == "policy")
    assert len(alerts(caplog)) <= 2


def _until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_request_without_a_feature_is_its_own_fault_and_not_the_policys(router, caplog):
    full = router()
    missing = {name: value for name, value in HARD.items() if name != "stakes"}
    wrong = routed(full, missing)
    assert (wrong.source, wrong.why) == ("fallback", "the request has no feature stakes, which the policy reads")
    for value in (float("nan"), float("inf"), 3e38, True, "high"):
        assert "feature stakes is" in routed(full, {**HARD, "stakes": value}).why
    assert routed(full, HARD).source == "policy"
    assert alerts(caplog) == []


def test_another_policy_is_taken_as_soon_as_it_is_in_use(registry, router):
    full = router()
    assert routed(full, HARD).opinion.version == 2
    rollback(registry, who="me")
    assert routed(full, HARD).opinion.version == 1
    rollback(registry, who="me")
    nothing = routed(full, HARD)
    assert (nothing.source, nothing.why, nothing.opinion) == ("fixed", "no policy is in use", None)
    rollback(registry, who="me", to=2)
    assert routed(full, HARD).opinion.version == 2


def test_what_cannot_be_written_down_is_told_once_and_holds_nobody(tmp_path, router, caplog):
    (tmp_path / "file").touch()
    log = RoutingLog(enabled=True, decisions=str(tmp_path / "file" / "d.jsonl"), outcomes=str(tmp_path / "o.jsonl"))
    full = router(log=log)
    decisions = [routed(full, HARD) for _ in range(5)]
    assert decisions[0].source == "policy"
    assert (full.counts["lost"], len(alerts(caplog))) == (5, 1)
    full.record(decisions[0], reward=float("nan"))
    assert full.counts["lost"] == 6


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


def test_the_propensity_of_a_mode_is_how_often_it_is_taken(router):
    canary = router(exposure="canary", canary_share=0.3, exploration=0.2)
    decisions = [routed(canary, HARD, f"r{at}") for at in range(4000)]
    taken = Counter(each.mode for each in decisions)
    for mode, propensity in {each.mode: each.propensity for each in decisions}.items():
        assert taken[mode] / len(decisions) == pytest.approx(propensity, abs=0.03)
    assert sum({each.mode: each.propensity for each in decisions}.values()) == pytest.approx(1)


def test_modes_that_were_not_to_be_had_are_not_held_against_a_policy(router, tmp_path):
    log = RoutingLog(enabled=True, decisions=str(tmp_path / "d.jsonl"), outcomes=str(tmp_path / "o.jsonl"))
    shadow = router(exposure="shadow", exploration=0.5, log=log)
    decision = routed(shadow, HARD, preferences=CollaborationPreferences(budget_usd=0.015))
    shadow.record(decision, reward=1.0)
    shadow.record(routed(shadow, HARD, confidence=1.0), reward=1.0)  # which left nothing to decide
    replayed = read_log(tmp_path / "o.jsonl", features=7)
    assert replayed.allowed.tolist() == [[1, 1, 1, 0, 0]]
    assert within_reach(replayed, np.full((1, 5), 0.2))[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0])


def test_many_threads_may_ask_one_router(router):
    full, wrong = router(), []

    def ask(at):
        for number in range(50):
            task, liked = ((EASY, easy), (HARD, hard))[(at + number) % 2]
            if routed(full, task).mode != liked:
                wrong.append(number)

    easy, hard = routed(full, EASY).mode, routed(full, HARD).mode
    threads = [threading.Thread(target=ask, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert full.counts["policy"] == 202


@pytest.mark.parametrize(
    ("wrong", "sentence"), [({"exposure": "of"}, "exposure"), ({"canary_share": 0}, "canary_share")]
)
def test_a_wrong_setting_is_told(wrong, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_as(RoutingConfig, None, [f"{name}={value}" for name, value in wrong.items()])
