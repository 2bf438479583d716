"""The recipe of code, shortened: it warms up on programs, and learns from what they return in the sandbox."""

import json
from pathlib import Path

from fettle.cli.train import new_run
from fettle.config.load import load
from fettle.tracking import read_metrics
from tests.environments.shorter import shorter

RECIPE = Path(__file__).parents[2] / "configs" / "code-grpo.yaml"
SHORTER = shorter("{type: code, problems: {max_steps: 2, tests: 4}, system: null, heldout: 6}")


def test_the_recipe_runs_what_is_written(tmp_path):
    _, [_, learned] = new_run(tmp_path, load(RECIPE, SHORTER))
    rows = read_metrics(learned.folder / "metrics.jsonl")
    assert {"reward/component/tests", "heldout/component/tests", "alarm/length"} <= {
        name for row in rows for name in row
    }
    assert learned.last["heldout/failed"] == 0
    page = next((learned.folder / "transcripts").glob("*.md")).read_text()
    assert "= `tests` 0" in page
    assert json.loads((learned.folder / "summary.json").read_text())["steps"] == 2


def test_both_stages_hold_out_the_same_functions():
    warm_up, grpo = load(RECIPE).stages
    assert grpo.environments == (warm_up.data.tasks,)
    assert grpo.evaluation.tasks <= warm_up.data.tasks.heldout
