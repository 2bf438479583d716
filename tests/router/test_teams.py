"""Caps are never exceeded, and whatever fits is found."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.config.routing import CollaborationPreferences
from fettle.errors import ConfigError
from fettle.router.modes import MODES, CollaborationMode, CollaborationPolicy
from fettle.router.teams import ROUNDS, Agent, Team, nearest, teams

amounts = st.one_of(st.just(0.0), st.floats(0, 1e6, allow_subnormal=False), st.sampled_from([0.1, 0.2, 0.3]))
several = st.lists(st.builds(Agent, st.just("agent"), amounts, amounts), max_size=6)
preferences = st.builds(
    CollaborationPreferences,
    depth=st.integers(0, 3),
    ask_online=st.booleans(),
    budget_usd=amounts,
    p95_latency_s=amounts,
)


@given(several, preferences)
def test_no_team_exceeds_a_cap_or_its_modes_number_of_agents(agents, wanted):
    found = teams(agents, wanted)
    assert found.allowed.keys() | found.ruled_out.keys() == set(MODES)
    assert not found.allowed.keys() & found.ruled_out.keys()
    for mode, team in found.allowed.items():
        assert team.usd <= wanted.budget_usd
        assert team.p95_s <= wanted.p95_latency_s
        CollaborationPolicy.enforce(mode, len(team.agents))
        assert team.agents[0] is agents[0]
        assert mode is CollaborationMode.SOLO or (wanted.ask_online and wanted.depth > 0)


@given(several.filter(bool), preferences.filter(lambda wanted: wanted.ask_online and wanted.depth > 0))
def test_a_mode_is_ruled_out_only_where_no_team_would_do(agents, wanted):
    found = teams(agents, wanted)
    for mode in found.ruled_out:
        rounds = 1 if mode is CollaborationMode.SOLO else ROUNDS[mode] * wanted.depth
        rule = CollaborationPolicy.of(mode)
        for others in itertools.combinations(agents[1:], rule.fewest - 1):
            team = Team((agents[0], *others), rounds)
            assert team.usd > wanted.budget_usd or team.p95_s > wanted.p95_latency_s


LOCAL, CHEAP, DEAR, SLOW = Agent("local", 0, 1), Agent("cheap", 0.1, 2), Agent("dear", 5, 2), Agent("slow", 0.1, 90)


def test_agents_that_come_first_are_taken_first_where_the_caps_allow():
    def names(*agents, **wanted):
        found = teams(agents, CollaborationPreferences(budget_usd=6, **wanted))
        return {str(mode): [agent.name for agent in team.agents] for mode, team in found.allowed.items()}

    everyone = names(LOCAL, DEAR, SLOW, CHEAP)
    assert everyone["solo"] == ["local"]
    assert everyone["consult"] == ["local", "dear"]
    assert everyone["collaborate"] == ["local", "dear", "cheap"]
    assert everyone["consensus"] == ["local", "cheap"]  # two rounds of dear would cost 10
    assert "swarm" not in everyone
    assert names(LOCAL, DEAR, CHEAP, depth=2)["consult"] == ["local", "cheap"]


@pytest.mark.parametrize(
    ("wanted", "mode", "reason"),
    [
        ({"ask_online": False}, "consult", "preferences.ask_online is false"),
        ({"depth": 0}, "swarm", "preferences.depth is 0"),
        ({"budget_usd": 0.05}, "collaborate", "it costs at least 0.1 USD, over preferences.budget_usd, 0.05"),
        ({"p95_latency_s": 0.5}, "solo", "local alone takes 1 s, over 0.5 s"),
        ({"p95_latency_s": 1.5}, "collaborate", "too few of its agents answer within"),
        ({}, "swarm", "it takes 3 agents, and there are 2"),
    ],
)
def test_a_mode_that_is_not_to_be_had_says_why(wanted, mode, reason):
    assert reason in teams([LOCAL, CHEAP], CollaborationPreferences(**wanted)).ruled_out[CollaborationMode(mode)]


def test_depth_costs_and_takes_as_much_again():
    once, thrice = (
        teams([LOCAL, CHEAP], CollaborationPreferences(depth=depth)).allowed[CollaborationMode.COLLABORATE]
        for depth in (1, 3)
    )
    assert (thrice.rounds, thrice.usd, thrice.p95_s) == pytest.approx((3, 3 * once.usd, 3 * once.p95_s))


def test_in_the_place_of_a_mode_comes_one_that_asks_less_and_only_then_one_that_asks_more():
    solo, consult, collaborate, consensus, swarm = MODES
    team = Team((LOCAL,), 1)
    assert nearest(consensus, {solo: team, collaborate: team, swarm: team}) is collaborate
    assert nearest(consult, {collaborate: team, swarm: team}) is collaborate
    assert nearest(consult, {}) is None


def test_prices_that_no_float_can_hold_together_are_over_any_budget():
    dear = Agent("dear", 1e308, 1e308)
    assert Team((dear, dear, dear), 1).usd == math.inf
    found = teams([dear, dear, dear], CollaborationPreferences(budget_usd=1e308, p95_latency_s=1e308))
    assert {mode: len(team.agents) for mode, team in found.allowed.items()} == {"solo": 1, "consult": 1}
    assert found.ruled_out[CollaborationMode.COLLABORATE].startswith("it costs at least inf USD")


@pytest.mark.parametrize(
    "wrong", [{"usd": -1.0}, {"usd": float("nan")}, {"p95_s": float("inf")}, {"usd": "1"}, {"p95_s": 10**400}]
)
def test_an_agent_whose_price_is_no_price_cannot_be_named(wrong):
    with pytest.raises(ConfigError, match="both are numbers from 0 on"):
        Agent("agent", **wrong)
