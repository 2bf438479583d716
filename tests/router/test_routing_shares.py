"""Which requests a canary follows the policy for, and how often any mode is tried."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.config.routing import RoutingConfig
from fettle.router.modes import MODES
from fettle.router.routing import Router
from tests.router.asking import EASY, HARD, routed


def test_a_canary_follows_the_policy_for_its_share_and_a_request_always_on_one_side(router):
    canary = router(exposure="canary", canary_share=0.2)
    sources = {f"r{at}": routed(canary, HARD, f"r{at}").source for at in range(2000)}
    share = Counter(sources.values())["policy"] / len(sources)
    assert 0.16 < share < 0.24
    again = {request: routed(canary, EASY, request).source for request in list(sources)[:50]}
    assert again == dict(list(sources.items())[:50])
    more = router(exposure="canary", canary_share=0.4)
    assert all(routed(more, HARD, name).source == "policy" for name, source in sources.items() if source == "policy")


@settings(max_examples=6)
@given(share=st.floats(0.01, 0.99), prefix=st.text(max_size=3), others=st.sampled_from([EASY, HARD]))
def test_whatever_its_share_a_canary_keeps_to_it_and_a_request_to_its_side(registries, share, prefix, others):
    canary = Router(RoutingConfig(exposure="canary", canary_share=share, registry=str(registries), time_limit_s=60.0))
    first = {name: routed(canary, HARD, name).source for name in (f"{prefix}{at}" for at in range(150))}
    assert {name: routed(canary, others, name).source for name in first} == first
    canary.close()
    spread = (share * (1 - share) / len(first)) ** 0.5
    assert Counter(first.values())["policy"] / len(first) == pytest.approx(share, abs=5 * spread)


def test_an_id_is_on_the_side_of_its_text(held):
    for text in ("one", "three", "8f14e45f-ceea-467f-a1c2-000000000000"):

        class Named:
            def __str__(self):
                return text  # noqa: B023  called before the loop goes on

        as_text, as_object = (routed(held["canary"], HARD, each) for each in (text, Named()))
        assert (as_object.source, as_object.mode, as_object.request) == (as_text.source, as_text.mode, text)


def test_the_propensity_of_a_mode_is_how_often_it_is_taken(router):
    canary = router(exposure="canary", canary_share=0.3, exploration=0.2)
    decisions = [routed(canary, HARD, f"r{at}") for at in range(4000)]
    taken = Counter(each.mode for each in decisions)
    for mode, propensity in {each.mode: each.propensity for each in decisions}.items():
        assert taken[mode] / len(decisions) == pytest.approx(propensity, abs=0.03)
    assert sum({each.mode: each.propensity for each in decisions}.values()) == pytest.approx(1)


def test_an_id_may_be_any_text(held):
    for request in ("", "\ud800", "a/b\n"):
        assert routed(held["canary"], HARD, request).mode in MODES
