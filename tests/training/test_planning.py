"""More credit for planning tokens, and nothing at all where it is not asked for."""

import numpy as np
import pytest

from fettle.chat import Template, load_tokenizer
from fettle.config import Planning
from fettle.training.planning import Planner
from fettle.types import Datum, datum

from .conftest import small, trained
from .games import Game, length


@pytest.fixture(scope="module")
def template(tiny) -> Template:
    return Template(load_tokenizer(tiny))


def conversation(tiny: str, *turns: str, advantage: float = 1.0) -> Datum:
    """Replies, each after a prompt of two tokens that have no text."""
    tokenizer = load_tokenizer(tiny)
    tokens, mask = [], []
    for turn in turns:
        said = tokenizer.encode(turn, add_special_tokens=False)
        tokens += [0, 0, *said]
        mask += [0.0, 0.0, *[1.0] * len(said)]
    return datum(tokens, mask, advantages=advantage * np.array(mask))


def planner(template: Template, *phrases: str, alpha: float = 0.2) -> Planner:
    return Planner(Planning(phrases=phrases, alpha=alpha), template)


@pytest.mark.parametrize(("advantage", "raised"), [(1.0, 1.2), (-1.0, -0.8)])
def test_success_counts_more_in_a_plan_and_failure_less(tiny, template, advantage, raised):
    data = conversation(tiny, "so, Let us  try this", advantage=advantage)
    [[changed]], row = planner(template, "let us try").credited([[data]])
    text = "".join(
        piece
        for piece, value in zip(template.pieces(data.tokens.tolist()), changed.streams["advantages"], strict=True)
        if value == np.float32(raised)
    )
    assert text.split() == ["Let", "us", "try"]
    others = changed.streams["advantages"][changed.streams["advantages"] != np.float32(raised)]
    assert set(others.tolist()) == {0.0, advantage}
    assert 0 < row["planning/share"] < 1


def test_a_phrase_does_not_run_from_one_reply_into_the_next(tiny, template):
    [[changed]], row = planner(template, "let us try").credited([[conversation(tiny, "let us", " try")]])
    assert row == {"planning/share": 0.0}
    assert set(changed.streams["advantages"].tolist()) == {0.0, 1.0}


def test_the_share_is_that_of_trained_tokens(tiny, template):
    data = [[conversation(tiny, "try")], [conversation(tiny, "no")]]
    said, unsaid = (float(rows[0].loss_mask.sum()) for rows in data)
    _, row = planner(template, "try").credited(data)
    assert row["planning/share"] == pytest.approx(said / (said + unsaid))


def test_a_prompt_is_no_plan(tiny, template):
    tokens = load_tokenizer(tiny).encode("let us try ", add_special_tokens=False)
    asked = datum([*tokens, 5, 6], [0.0] * len(tokens) + [1.0, 1.0], advantages=[0.0] * len(tokens) + [1.0, 1.0])
    assert planner(template, "let us try").credited([[asked]])[1] == {"planning/share": 0.0}


async def test_without_planning_a_run_is_the_same_to_the_bit_as_with_phrases_that_nobody_says(tiny, tmp_path):
    def told(done) -> list[dict[str, float]]:
        rows = done.memory.rows
        return [{k: v for k, v in row.items() if not k.startswith(("time", "speed", "planning"))} for row in rows]

    without = await trained(small(tiny), tmp_path / "a", [Game(length)])
    unsaid = await trained(small(tiny, planning={"phrases": ["nobody says this"]}), tmp_path / "b", [Game(length)])
    assert told(without) == told(unsaid)
    weights = [
        (done.folder.checkpoints / "step-000006" / "model.safetensors").read_bytes() for done in (without, unsaid)
    ]
    assert weights[0] == weights[1]
    assert unsaid.memory.column("planning/share") == [0.0] * 6
    assert not without.memory.column("planning/share")


async def test_a_run_gives_planning_tokens_more(tiny, tmp_path):
    """The letter is in most replies of an untrained model, as a word of its own."""
    run = small(tiny, planning={"phrases": list("abcdefghijklmnopqrstuvwxyz0123456789")}, steps=2)
    assert max((await trained(run, tmp_path, [Game(length)])).memory.column("planning/share")) > 0


def test_a_blank_phrase_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match=r"phrases\.1 is blank: write what marks a plan, or leave it out"):
        Planning(phrases=("let us", " \n"))


def test_planning_needs_credit_to_raise():
    with pytest.raises(
        ValueError, match="planning raises the credit that rewards give, and advantage: none gives none"
    ):
        small("unused", preset="distill", teacher={"model": "x"}, planning={"phrases": ["so"]})
