from benchmarks.harness import Row, in_turn, interleaved, told
from benchmarks.machine import Floor

FASTER = Row(name="made-up", work="work", peer="peer", target=5.0)
LEANER = Row(name="made-up", work="work", peer="peer", target=0.2, better="lower")


def test_a_target_may_be_a_least_or_a_most():
    assert [FASTER.met(value) for value in (4.9, 5.0)] == [False, True]
    assert [LEANER.met(value) for value in (0.2, 0.21)] == [True, False]


def test_each_repetition_begins_with_another_side():
    calls: list[str] = []
    in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert "".join(calls) == "abbaab"


def test_a_warm_up_is_not_counted():
    times = iter([100.0, 1.0, 2.0])
    assert interleaved({"a": lambda: next(times)}, 2) == {"a": [1.0, 2.0]}


def test_a_side_is_told_as_a_multiple_of_the_floor():
    floor = Floor(fp32_gflops=100.0, bf16_gflops=200.0, copy_gbps=10.0)
    assert told([0.2, 0.2], flops=1e10, floor=floor)["floor_multiple"] == 2.0
    assert told([0.2, 0.2], flops=1e10, floor=floor, dtype="bf16")["floor_multiple"] == 4.0
