"""Explanations: what names the change in a few sentences is worth something, and stuffing is worth nothing."""

import pytest

from fettle.rewards import explained

STATEMENT = "clamp is wrong for 12, 0, 9: it gives 12 and should be 9"
CHANGE = "--- a/parts/clamp.py\n+++ b/parts/clamp.py\n@@ -4,1 +4,1 @@\n-        return value\n+        return high\n"
GOOD = "The branch for a `value` that is too large returned it as it was, and must return `high` as the issue says."


def worth(text: str) -> float:
    return explained(text, statement=STATEMENT, change=CHANGE)


def test_a_sentence_that_names_what_is_changed_is_worth_everything():
    assert worth(GOOD) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tests are passing",
        "All tests are passing, the bug is fixed, and the solution is complete and correct as it should be.",
        "fix " * 20,
        "fix bug because root cause solution implemented tests passing error resolved improve refactor " * 5,
        "`value` `high` " * 30,
        "value high return clamp parts py function fix bug solve issue problem code test",
    ],
)
def test_stuffing_is_worth_nothing(text):
    assert worth(text) == 0.0


def test_names_that_are_not_there_cost():
    invented = GOOD.replace("the issue", "`Oracle.answer` of `magic_module`")
    assert 0 < worth(invented) < worth(GOOD)


def test_more_words_earn_no_more_and_too_many_cost():
    longer = f"{GOOD} {GOOD.replace('The branch', 'In this file, the other branch').replace('must', 'now has to')}"
    assert worth(longer) <= worth(GOOD)
    words = " ".join(f"word{chr(97 + at % 26)}{chr(97 + at // 26)} and the" for at in range(100))
    assert worth(f"{GOOD} {words}") == 0.0


def test_half_of_what_is_changed_is_worth_half():
    assert worth(GOOD.replace("`high`", "another one")) == pytest.approx(0.5)
