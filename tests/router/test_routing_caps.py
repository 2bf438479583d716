"""Caps hold whatever is asked, and whoever is asked takes a mode that is allowed."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.config.routing import CollaborationPreferences, RoutingConfig
from fettle.router.modes import MODES
from fettle.router.routing import Router
from fettle.router.tasks import Tasks
from fettle.router.teams import Agent, teams

amounts = st.one_of(
    st.just(0.0),
    st.floats(0, 100),
    st.sampled_from([0.1, 0.2, 0.3, 0.6, 1e308, np.float32(0.1), Fraction(1, 3), 10**18]),
)
bounds = st.one_of(st.just(0.0), st.floats(0, 100), st.sampled_from([0.1, 0.2, 0.3, 0.6, 1e308]))
preferences = st.builds(
    CollaborationPreferences,
    mode=st.sampled_from([str(mode) for mode in MODES]),
    depth=st.integers(0, 3),
    auto=st.booleans(),
    ask_online=st.booleans(),
    budget_usd=bounds,
    p95_latency_s=bounds,
)
several = st.lists(st.builds(Agent, st.just("agent"), amounts, amounts), max_size=5)
numbers = st.floats() | st.sampled_from([10**400, "0.9", True, None, np.float32(0.5), [0.5]])
tasks = st.one_of(
    st.fixed_dictionaries({name: st.floats(0, 1) for name in Tasks.features}),
    st.dictionaries(st.sampled_from(Tasks.features) | st.integers() | st.text(max_size=2), numbers),
    st.none(),
)


@given(
    agents=several,
    wanted=preferences,
    exposure=st.sampled_from(["fixed", "shadow", "canary", "full", "exploring"]),
    task=tasks,
    confidence=numbers,
    request=st.text(max_size=3) | st.integers(),
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


@given(agents=several, wanted=preferences, task=tasks)
def test_a_shadow_changes_no_answer(held, agents, wanted, task):
    shadow, fixed = (
        held[exposure].route(task, agents, request="one", preferences=wanted) for exposure in ("shadow", "fixed")
    )
    assert (shadow.mode, shadow.agents, shadow.rounds, shadow.usd, shadow.p95_s, shadow.propensity) == (
        fixed.mode,
        fixed.agents,
        fixed.rounds,
        fixed.usd,
        fixed.p95_s,
        fixed.propensity,
    )


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """A router that finds no policy."""
    made = Router(RoutingConfig(exposure="full", registry=str(tmp_path_factory.mktemp("nothing")), retry_s=3600.0))
    yield made
    made.close()


@given(agents=several, wanted=preferences)
def test_what_a_failure_ends_in_is_the_fixed_mode_where_that_is_allowed_and_else_one_that_is(failing, agents, wanted):
    decision = failing.route({}, agents, request="one", preferences=wanted)
    allowed = teams(agents, wanted).allowed
    assert decision.mode in (allowed or {None: None})
    assert decision.source == ("fallback" if wanted.auto else "preference") if allowed else "nothing"
    if wanted.mode in allowed:
        assert decision.mode == wanted.mode


@pytest.mark.parametrize("broken", [{"budget_usd": math.nan}, {"p95_latency_s": math.nan}, {"budget_usd": -1.0}])
def test_a_cap_that_is_no_cap_allows_nothing(held, broken):
    """Settings are checked when they are made, and not where somebody makes a copy of them."""
    wanted = CollaborationPreferences().model_copy(update=broken)
    decision = held["full"].route({}, [Agent("agent", 0.1, 0.1)], request="one", preferences=wanted)
    assert (decision.mode, decision.source) == (None, "nothing")
