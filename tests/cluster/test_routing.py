from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.cluster.routing import Sessions, ranked

NAMES = st.sets(st.text("abcdef", min_size=1, max_size=3), min_size=2, max_size=6)


@settings(max_examples=40)
@given(st.binary(max_size=40), NAMES)
def test_a_sampler_that_goes_moves_only_what_it_drew(key, names):
    order = ranked(key, names)
    assert sorted(order) == sorted(names)
    for gone in names:
        assert ranked(key, names - {gone}) == [name for name in order if name != gone]


def test_a_session_stays_where_it_began_and_new_ones_are_spread():
    sessions = Sessions()
    prompts = [[7, 7, task] for task in range(40)]
    places = sessions.placed(prompts, [10] * 40, ["a", "b"])
    assert 15 <= places.count("a") <= 25
    for prompt, place in zip(prompts, places, strict=True):
        sessions.remember(prompt, place)
    longer = [[*prompt, 1, 2] for prompt in prompts]
    assert sessions.placed(longer, [1000] * 40, ["a", "b"]) == places
    assert set(sessions.placed(longer, [1] * 40, ["c"])) == {"c"}
    assert sessions.placed(prompts, [10] * 40, ["b", "a"]) == places
