"""Deficit round robin: shares, order, and nobody starves; in turns and tokens, with no clock."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.broker.turns import Turns

QUANTUM = 100
FLOWS = st.sampled_from("abcd")
COSTS = st.integers(1, 5 * QUANTUM)


@given(st.lists(st.one_of(st.tuples(FLOWS, COSTS), st.none()), max_size=200))
@settings(max_examples=200, deadline=None)
def test_every_item_is_taken_once_and_those_of_a_flow_in_the_order_they_were_put(steps):
    turns: Turns[tuple[str, int]] = Turns(QUANTUM)
    put: dict[str, list[int]] = {name: [] for name in "abcd"}
    taken: dict[str, list[int]] = {name: [] for name in "abcd"}
    for number, step in enumerate(steps):
        if step is not None:
            flow, cost = step
            put[flow].append(number)
            turns.put(flow, (flow, number), cost)
        elif turns:
            flow, item = turns.take()
            taken[flow].append(item)
    while turns:
        flow, item = turns.take()
        taken[flow].append(item)
    assert taken == put


@given(st.lists(st.integers(1, 3 * QUANTUM), min_size=2, max_size=4))
@settings(max_examples=100, deadline=None)
def test_flows_that_always_have_work_get_the_same_tokens_whatever_the_size_of_their_calls(costs):
    turns: Turns[int] = Turns(QUANTUM)
    used: Counter[int] = Counter()
    for flow, cost in enumerate(costs):
        turns.put(str(flow), flow, cost)
    for _ in range(2000):
        flow = turns.take()
        used[flow] += costs[flow]
        turns.put(str(flow), flow, costs[flow])
    # Apart by no more than what a turn may use and one call beyond it.
    assert max(used.values()) - min(used[flow] for flow in range(len(costs))) <= QUANTUM + 2 * max(costs)


@given(st.lists(COSTS, min_size=1, max_size=60), st.integers(0, 59))
@settings(max_examples=200, deadline=None)
def test_a_newcomer_waits_for_at_most_a_quantum_and_one_call(costs, before):
    turns: Turns[tuple[str, int]] = Turns(QUANTUM)
    for cost in costs:
        turns.put("flood", ("flood", cost), cost)
    for _ in range(min(before, len(costs) - 1)):
        turns.take()
    turns.put("small", ("small", 1), 1)
    waited = 0
    while (item := turns.take())[0] != "small":
        waited += item[1]
    assert waited < QUANTUM + max(costs)


def test_one_who_sends_a_large_call_after_the_other_still_owes_for_the_last():
    turns: Turns[str] = Turns(QUANTUM)
    costs = {"large": 10 * QUANTUM, "small": QUANTUM // 10}
    used: Counter[str] = Counter()
    turns.put("large", "large", costs["large"])
    turns.put("small", "small", costs["small"])
    for _ in range(2000):
        flow = turns.take()
        used[flow] += costs[flow]
        turns.put(flow, flow, costs[flow])
    assert abs(used["large"] - used["small"]) <= costs["large"] + QUANTUM


def test_while_nobody_else_waits_debts_cost_no_time():
    turns: Turns[int] = Turns(QUANTUM)
    for number in range(5):
        turns.put("alone", number, 1000 * QUANTUM)
    assert [turns.take() for _ in range(5)] == list(range(5))


def test_what_a_call_costs_beyond_its_estimate_is_charged_and_given_back():
    turns: Turns[str] = Turns(QUANTUM)
    for name in ("a", "a", "b"):
        turns.put(name, name, 1)
    first = turns.take()
    turns.charge(first, QUANTUM)
    assert [turns.take(), turns.take()] == ["b", "a"]
    for name in ("a", "a", "b"):
        turns.put(name, name, 2 * QUANTUM)
    assert turns.take() == "a"
    turns.charge("a", -2 * QUANTUM)
    assert turns.take() == "a"


def test_what_is_put_first_is_taken_before_all_that_waits_in_its_flow_and_before_nobody_else():
    turns: Turns[str] = Turns(QUANTUM)
    for flow, item in (("a", "a1"), ("b", "b1"), ("a", "a2")):
        turns.put(flow, item, QUANTUM)
    turns.put("b", "b0", QUANTUM, first=True)
    assert [turns.take() for _ in range(len(turns))] == ["a1", "b0", "a2", "b1"]
