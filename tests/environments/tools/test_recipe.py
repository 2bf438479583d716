"""The recipe of tools, shortened: it warms up on calls, and learns from what they lead to."""

from pathlib import Path

from fettle.cli.train import new_run
from fettle.config.load import load
from fettle.tracking import read_metrics
from tests.environments.shorter import shorter

RECIPE = Path(__file__).parents[3] / "configs" / "tools-calculator.yaml"
SHORTER = shorter("{type: tools, tasks: {type: calculations, digits: 3}, system: null, heldout: 6}")


def test_the_recipe_offers_tools_and_pays_answers(tmp_path):
    _, [_, learned] = new_run(tmp_path, load(RECIPE, SHORTER))
    rows = read_metrics(learned.folder / "metrics.jsonl")
    assert {"heldout/component/number", "measured/tools/calls"} <= {name for row in rows for name in row}
    assert learned.last["heldout/failed"] == 0


def test_both_stages_hold_out_the_same_calculations():
    warm_up, grpo = load(RECIPE).stages
    assert grpo.environments == (warm_up.data.tasks,)
    assert grpo.evaluation.tasks <= warm_up.data.tasks.heldout
