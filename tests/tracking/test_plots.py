"""Curves show what was logged, and nothing that was not."""

import math
import subprocess
import sys

import pytest
from matplotlib.image import imread

from fettle.tracking.plots import curves, draw_curves

STEPS = [
    {
        "step": step,
        "reward/mean": step / 100,
        "policy/kl": 0.001 * step,
        "policy/entropy": 1.0,
        "policy/clip_fraction": 0.1,
        "speed/tokens_per_second": 1000.0,
    }
    for step in range(1, 61)
]
EVALUATIONS = [
    {"step": step, "heldout/reward": 0.5, "heldout/reward_low": 0.4, "heldout/reward_high": 0.6} for step in (0, 30, 60)
]


def panels(rows) -> dict[str, list[str]]:
    """The titles drawn, and the labels of their lines."""
    return {axes.get_title("left"): axes.get_legend_handles_labels()[1] for axes in curves(rows).axes}


def test_reinforcement_shows_reward_kl_entropy_clipping_and_speed():
    assert panels(STEPS + EVALUATIONS) == {
        "Reward": ["training", "held-out, 95 % interval"],
        "KL divergence": ["from reference"],
        "Entropy": ["policy"],
        "Clip fraction": ["clipped"],
        "Speed": ["tokens"],
    }


def test_supervision_shows_losses_and_speed():
    rows = [{"step": 1, "loss": 0.5, "speed/tokens_per_second": 10.0}, {"step": 1, "heldout/loss": 0.6}]
    assert panels(rows) == {"Loss": ["training", "held-out"], "Speed": ["tokens"]}


def test_points_and_interval_are_where_they_were_measured():
    axes = curves(EVALUATIONS).axes[0]
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[0, 0.5], [30, 0.5], [60, 0.5]]
    (band,) = axes.collections
    assert band.get_datalim(axes.transData).extents.tolist() == pytest.approx([0, 0.4, 60, 0.6])


def test_a_long_noisy_line_keeps_every_point_beside_its_running_mean():
    raw, mean = curves(STEPS).axes[0].lines
    assert raw.get_ydata().tolist() == [row["reward/mean"] for row in STEPS]
    assert mean.get_ydata() == pytest.approx(raw.get_ydata())  # a straight line is its own running mean


def test_numbers_that_are_none_leave_gaps_and_a_step_done_again_counts_once():
    rows = [
        {"step": step, "loss": value} for step, value in ((1, 3.0), (2, math.nan), (2, 2.0), (3, math.inf), (2, 1.0))
    ]
    (line,) = curves(rows).axes[0].lines
    assert line.get_xydata().tolist() == [[1, 3.0], [2, 1.0]]


@pytest.mark.parametrize("rows", [STEPS + EVALUATIONS, STEPS[:1], EVALUATIONS[:1], [{"step": 1, "loss": -1.0}]])
def test_a_picture_is_left(tmp_path, rows):
    draw_curves(rows, tmp_path / "curves.png")
    picture = imread(tmp_path / "curves.png")
    assert picture.shape[1] == 1200
    assert picture[0, 0, :3].tolist() == [1, 1, 1]
    assert picture.std() > 0.01


def test_nothing_logged_nothing_drawn(tmp_path):
    draw_curves([], tmp_path / "curves.png")
    draw_curves([{"step": 1, "time/step": 1.0}], tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_the_room_is_entered_without_matplotlib_and_no_display_is_ever_touched():
    code = (
        "import sys; import fettle.tracking; print('matplotlib' in sys.modules, 'torch' in sys.modules);"
        "import fettle.tracking.plots; print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]
