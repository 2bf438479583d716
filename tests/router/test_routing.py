"""A router in use: what it decides, and on whose word."""

import shutil
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from fettle.config import load_as
from fettle.config.routing import CollaborationPreferences, RoutingConfig
from fettle.errors import ConfigError
from fettle.router.modes import MODES
from fettle.router.promotion import rollback
from fettle.router.routing import Router
from fettle.router.tasks import Tasks
from tests.router.asking import AGENTS, EASY, HARD, routed


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


@pytest.fixture
def folder(runs, tmp_path):
    return Path(shutil.copytree(runs / "best", tmp_path / "run"))


def test_a_run_that_was_never_promoted_may_only_be_shadowed(folder, router):
    decision = routed(router(exposure="shadow", policy=str(folder)), HARD)
    assert (decision.source, decision.opinion.version) == ("fixed", None)
    for exposure in ("canary", "full"):
        with pytest.raises(ValueError, match="which no gate has passed"):
            RoutingConfig(exposure=exposure, policy="run")


def test_another_policy_is_taken_as_soon_as_it_is_in_use(registry, router):
    full = router(reload_s=0.0)
    assert routed(full, HARD).opinion.version == 2
    rollback(registry, who="me")
    assert routed(full, HARD).opinion.version == 1
    rollback(registry, who="me")
    nothing = routed(full, HARD)
    assert (nothing.source, nothing.why, nothing.opinion) == ("fixed", "no policy is in use", None)
    rollback(registry, who="me", to=2)
    assert routed(full, HARD).opinion.version == 2


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
