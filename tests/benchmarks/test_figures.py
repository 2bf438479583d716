import pytest

from benchmarks.figures import exponent, ratio, rounded, spread


def test_a_spread_has_the_median_and_the_quartiles():
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == {"median": 3.0, "q1": 2.0, "q3": 4.0, "n": 5}


def test_a_single_value_is_its_own_spread():
    assert spread([7.0]) == {"median": 7.0, "q1": 7.0, "q3": 7.0, "n": 1}


def test_a_ratio_is_of_medians_so_that_one_slow_turn_changes_nothing():
    assert ratio([10.0, 10.0, 900.0], [2.0, 2.0, 2.0]) == 5.0


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_that_power(power):
    sizes = [1, 2, 4, 8, 16]
    assert exponent(sizes, [3.0 * size**power for size in sizes]) == pytest.approx(power)


def test_what_a_cost_begins_with_does_not_hide_how_it_grows():
    sizes = [1, 2, 4, 8, 16]
    costs = [100.0, 100.0, 4.0**2, 8.0**2, 16.0**2]
    assert exponent(sizes, costs) == pytest.approx(2.0)


def test_a_record_is_rounded_all_the_way_down():
    assert rounded({"a": [1.234567891, {"b": 2}], "c": float("nan")}) == {"a": [1.2346, {"b": 2}], "c": None}
