"""Values as people read them, and hostile text as it is."""

from datetime import UTC, datetime, timedelta

import pytest

from fettle.service.faces.console.shown import LONGEST, age, clipped, finite, number, size, visible

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "␛[31mred"),
        ("user\u202egnp.exe", "user\\u202egnp.exe"),
        ("a\u2066b\u200f", "a\\u2066b\\u200f"),
        ("tab\tline\n", "tab\tline\n"),
        ("\x00\x7f", "␀␡"),
        ("lone \ud800", "lone \\ud800"),
    ],
)
def test_what_would_hide_or_turn_text_around_is_made_visible(text, shown):
    assert visible(text) == shown


def test_a_huge_text_is_cut_and_says_by_how_much():
    assert clipped("x" * (LONGEST + 7)) == ("x" * LONGEST, 7)


@pytest.mark.parametrize(
    ("ago", "shown"),
    [(0, "0 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90_000, "1 d 1 h"), (-5, "0 s")],
)
def test_ages_have_two_units(ago, shown):
    assert age(NOW - timedelta(seconds=ago), NOW) == shown


def test_a_time_from_a_database_without_zones_is_utc():
    assert age((NOW - timedelta(minutes=1)).replace(tzinfo=None), NOW) == "1 min 0 s"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(3, "3"), (12_345, "12,345"), (0.123456, "0.1235"), (-2.0, "-2"), (float("nan"), "–"), ("x", "–"), (True, "–")],
)
def test_numbers_have_four_digits_that_matter(value, shown):
    assert number(value) == shown
    assert (finite(value) is None) == (shown == "–")


def test_sizes_have_the_unit_that_suits_them():
    assert [size(0), size(1023), size(1536), size(3 * 2**30)] == ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]


def test_a_number_that_no_float_can_hold_is_none():
    assert finite(10**400) is None
    assert number(-(10**400)) == "–"
