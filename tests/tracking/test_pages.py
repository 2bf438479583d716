"""Samples can be read, and cannot do anything to whoever reads them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.tracking import Transcript
from fettle.tracking.pages import page
from fettle.types import Message, ToolCall

ASKED = Message("user", "1 + 2 =")
hostile = st.text(st.sampled_from(list("`~ \n\r\t\x1b\x00\x9b\u202e\u2028ab#<>&\ud800")), max_size=30)


def written(reply="3", **fields) -> str:
    parts = {"title": "a task", "reward": 1.0, "components": {"exact": 1.0}, "note": "", **fields}
    return page(20, [Transcript(messages=(ASKED, Message("assistant", reply)), **parts)])


def test_a_page_reads_well():
    transcript = Transcript(
        "4f2a", (ASKED, Message("assistant", "It is 3.")), 0.75, {"exact": 1.0, "overlong": -0.25}, "expected answer: 3"
    )
    assert page(20, [transcript]) == (
        "# Samples after 20 steps\n\n"
        "## 1. `4f2a`\n\n"
        "Reward **0.75** = `exact` 1 + `overlong` -0.25\n\n`expected answer: 3`\n\n"
        "**user**\n\n```text\n1 + 2 =\n```\n\n"
        "**assistant**\n\n```text\nIt is 3.\n```\n"
    )


def test_whose_side_it_is_how_it_ended_and_what_was_called_is_told():
    called = Message(
        "assistant", "Let me see.", (ToolCall("call_0_0", "add", '{"a": 2}'), ToolCall("call_0_1", "", "{oops"))
    )
    told = Message("tool", "5", tool_call_id="call_0_0")
    text = page(20, [Transcript("4f2a", (ASKED, called, told), 0.5, {}, "", "turns", "pro")])
    assert "Reward **0.5**\n\n`the side of pro`\n\n`cut short: turns`\n\n**user**" in text
    assert '**assistant**\n\n```text\nLet me see.\nadd({"a": 2})\nno call({oops)\n```\n' in text


@given(reply=hostile)
def test_nothing_a_model_says_can_end_its_block(reply):
    """Markdown ends a block with the first line of at least as many backticks and nothing else."""
    lines = written(reply).split("\n")
    opened = lines.index("**assistant**") + 2
    fence = lines[opened].removesuffix("text")
    closed = [at for at in range(opened + 1, len(lines)) if re.fullmatch(rf" {{0,3}}{fence}`*\s*", lines[at])]
    assert closed == [len(lines) - 2]


@given(reply=hostile, title=hostile, note=hostile)
def test_nothing_unseen_gets_through(reply, title, note):
    text = written(reply, title=title, note=note, components={note: 1.0})
    assert set(text) & set("\r\x1b\x00\x9b\u202e\u2028") == set()
    text.encode()


@given(title=hostile.filter(lambda text: "`" in text))
def test_a_title_stays_on_its_line_between_backticks_longer_than_its_own(title):
    heading = next(line for line in written(title=title).split("\n") if line.startswith("## "))
    fence = re.match(r"## 1\. (`+) ", heading)[1]
    assert heading.endswith(" " + fence)
    assert fence not in heading.removeprefix(f"## 1. {fence}").removesuffix(fence)


@pytest.mark.parametrize(("said", "shown"), [("\x1b[2J", "␛[2J"), ("a\u202eb", "a\\u202eb"), ("\ud800", "\\ud800")])
def test_what_is_unseen_is_shown(said, shown):
    assert f"\n{shown}\n" in written(said)
