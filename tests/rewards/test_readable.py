"""Readability: what is harder to read than it was earns less, and nothing that is only added earns more."""

import pytest

from fettle.rewards import readable

PLAIN = "def f(x):\n    if x < 0:\n        return 0\n    return x\n"
DEEP = (
    "def f(x):\n" + "".join(f"{'    ' * depth}if x > {depth}:\n" for depth in range(1, 11)) + "    " * 11 + "return x\n"
)


def test_a_program_that_is_as_it_was_is_worth_everything():
    assert readable([PLAIN], [PLAIN]) == 1.0


@pytest.mark.parametrize(
    "worse",
    [
        DEEP,
        f"x = {'1 + ' * 60}1\n" * 10,
        "def f(x):\n" + "    x = x + 1\n" * 80,
        "def f(x):\n" + "    x = x if x else 1\n" * 40,
        "def f(x:",
        "\0",
    ],
)
def test_what_is_harder_to_read_is_worth_less(worse):
    assert readable([PLAIN], [worse]) < 0.8


@pytest.mark.parametrize(
    "stuffed",
    [
        f"# a very clear comment\n{PLAIN}",
        PLAIN.replace("return x", "return x  # clear, readable, simple, documented"),
        f'"""Readable."""\n\n\n\n{PLAIN}',
        PLAIN + "\n\nclass Clean:\n    pass\n" * 20,
    ],
)
def test_padding_earns_nothing(stuffed):
    assert readable([PLAIN], [stuffed]) <= readable([PLAIN], [PLAIN])
    assert readable([DEEP], [f"# clear\n{DEEP}"]) == readable([DEEP], [DEEP])


def test_what_does_not_compile_is_no_excuse():
    assert readable(["def f(:"], [DEEP]) < 1.0
