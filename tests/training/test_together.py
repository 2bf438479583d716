"""All that a recipe may add to a batch, in one run: it goes, and each of its metrics is on the page."""

from pathlib import Path

import pytest

from fettle.types import Message

from .conftest import small, trained
from .games import Game, length

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("apart", [{"replay": {"groups": 1}}, {"correction": {}}], ids=lambda each: next(iter(each)))
async def test_everything_at_once(tiny, tmp_path, apart):
    run = small(
        tiny, steps=3, **apart, planning={"phrases": list("aeiou")}, teacher={"model": tiny}, minibatches=2, epochs=2,
        rehearsal={"data": {"type": "worked_sums"}}, overlong={"buffer": 0.9}, mask_truncated=True,
        trust_region={"type": "adaptive"}, kl_control={"target": 0.01}, loss={"kl": {"coefficient": 0.1}},
    )  # fmt: skip
    shown = [(Message("user", "1 + 2"), Message("assistant", "3"))]
    rows = (await trained(run, tmp_path, [Game(length)], rehearsed=shown)).memory.rows
    names = {name for row in rows for name in row}
    assert {"planning/share", "distill/reverse_kl", "rehearsal/loss"} < names
    assert {name for name in names if f"`{name}`" not in PAGE and "component" not in name} <= {"step"}


def test_a_proportional_controller_needs_a_horizon_longer_than_a_fifth_of_a_step():
    def controlled(horizon: int):
        return small(
            "unused", groups_per_step=10, group_size=5, loss={"kl": {"coefficient": 0.1}},
            kl_control={"target": 0.01, "horizon": horizon},
        )  # fmt: skip

    assert controlled(11).kl_control is not None
    with pytest.raises(ValueError, match=r"kl_control\.horizon is too short for steps of 50 episodes.*more than 10"):
        controlled(10)
    doubling = {"target": 0.01, "kind": "doubling", "horizon": 1}
    assert small("unused", loss={"kl": {"coefficient": 0.1}}, kl_control=doubling).kl_control is not None
