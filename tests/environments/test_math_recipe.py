"""The recipe of mathematics, shortened: both of its stages, and what they leave."""

from pathlib import Path

from fettle.cli.train import new_run
from fettle.config.load import load
from fettle.tracking import read_metrics

RECIPE = Path(__file__).parents[2] / "configs" / "math-linear-grpo.yaml"
SMALLER = [
    "stages.0.policy.model={type: tiny, hidden: 32, layers: 1, heads: 2}",
    "stages.0.data.size=64",
    "stages.0.data.tasks.heldout=8",
    "stages.0.steps=2",
    "stages.0.evaluation.every=2",
    "stages.1.environments.0.heldout=8",
    "stages.1.steps=2",
    "stages.1.groups_per_step=2",
    "stages.1.sampling.max_tokens=8",
    "stages.1.evaluation={every: 2, tasks: 8}",
]


def test_it_runs_and_its_rows_tell_what_was_measured(tmp_path):
    _, [_, learned] = new_run(tmp_path / "runs", load(RECIPE, SMALLER))
    assert learned.last["heldout/reward"] >= 0
    row = read_metrics(learned.folder / "metrics.jsonl")[1]
    assert {"reward/component/math", "measured/math/answered", "measured/math/grader_timeouts"} <= row.keys()
