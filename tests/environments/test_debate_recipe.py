"""The recipe of self-play, shortened: both stages, whom it is measured against, and its folder scored again."""

import json
from pathlib import Path

import pytest

from fettle.cli.train import new_run
from fettle.config.load import load
from fettle.tracking import read_metrics
from tests.cli.conftest import typed

RECIPE = Path(__file__).parents[2] / "configs" / "debate-self-play.yaml"
SHORTER = [
    "stages.0.policy.model={type: tiny, hidden: 32, layers: 1, heads: 2}",
    "stages.0.data.size=64",
    "stages.0.data.tasks.heldout=6",
    "stages.0.steps=2",
    "stages.0.batch_size=8",
    "stages.1.environments=[{type: debate, evidence: 4, heldout: 6}]",
    "stages.1.steps=2",
    "stages.1.groups_per_step=2",
    "stages.1.group_size=2",
    "stages.1.sampling.max_tokens=4",
    "stages.1.evaluation={every: 2, tasks: 6}",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder, [_, learned] = new_run(tmp_path_factory.mktemp("debates"), load(RECIPE, SHORTER))
    return folder.path, learned


def test_both_sides_are_the_policy_and_its_start_is_the_measure(trained):
    _, learned = trained
    rows = read_metrics(learned.folder / "metrics.jsonl")
    [before, after] = [row for row in rows if "heldout/win_rate" in row]
    for row in (before, after):
        assert row["heldout/win_rate_low"] <= row["heldout/win_rate"] <= row["heldout/win_rate_high"]
    assert {"player/pro/win_rate", "player/con/win_rate"} <= {name for row in rows for name in row}
    assert "The other side: " in next((learned.folder / "transcripts").glob("*.md")).read_text()


def test_both_stages_hold_out_the_same_claims():
    warm_up, learning = load(RECIPE).stages
    assert learning.environments == (warm_up.data.tasks,)
    assert learning.evaluation.tasks <= warm_up.data.tasks.heldout


def test_its_folder_plays_against_where_its_last_stage_started(trained, tmp_path):
    """To the bit as the stage itself was measured, from wherever the command is typed."""
    folder, learned = trained
    scored = typed("eval", folder, "--json", into=tmp_path)
    assert scored.code == 0, scored.err
    won = ["heldout/win_rate", "heldout/win_rate_low", "heldout/win_rate_high"]
    assert [json.loads(scored.out)[name] for name in won] == [learned.last[name] for name in won]
    assert scored.err.splitlines()[-1] == f"games against {folder / 'warm-up' / 'checkpoints' / 'step-000002'}"


def test_it_plays_against_whom_one_names(trained, tmp_path):
    folder, _ = trained
    scored = typed("eval", folder, "--against", folder / "warm-up" / "model", into=tmp_path)
    assert scored.code == 0, scored.err
    assert f"  games against {folder / 'warm-up' / 'model'}" in scored.out.splitlines()
    [line] = [line for line in scored.out.splitlines() if line.startswith("win rate  ")]
    assert " to " in line


def test_a_model_that_came_from_nowhere_plays_itself_and_it_is_told(trained, tmp_path):
    folder, _ = trained
    scored = typed("eval", folder / "warm-up" / "model", "--recipe", folder / "config.yaml", "--json", into=tmp_path)
    assert scored.code == 0, scored.err
    assert "games against itself, for nothing tells where it started; --against MODEL" in scored.err


def test_nobody_is_played_against_without_a_game(trained, tmp_path):
    folder, _ = trained
    asked = ("--environment", "arithmetic", "--against", folder)
    scored = typed("eval", folder / "warm-up" / "model", *asked, into=tmp_path)
    assert (scored.code, "no environment here is a game" in scored.complaint) == (2, True)
