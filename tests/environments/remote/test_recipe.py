"""The recipe of a served environment, shortened: both stages are carried out, and the second learns from the server."""

from pathlib import Path

from fettle.cli import build
from fettle.config.load import load
from fettle.tracking import RunFolder, read_metrics

RECIPE = Path(__file__).parents[3] / "configs" / "remote-arithmetic.yaml"
SHORTER = [
    "stages.0.policy.model={type: tiny, hidden: 64, layers: 2, heads: 2}",
    "stages.0.data.size=512",
    "stages.0.steps=60",
    "stages.0.batch_size=32",
    "stages.1.steps=3",
    "stages.1.groups_per_step=4",
    "stages.1.group_size=4",
    "stages.1.evaluation={every: 3, tasks: 20}",
]


async def test_the_recipe_trains_on_a_served_environment(served, tmp_path):
    config = load(RECIPE, [*SHORTER, f"stages.1.environments.0.address={served.address}"])
    folder = build.new_folder(tmp_path, config)
    await build.run(config, folder)
    rows = read_metrics(RunFolder.open(folder.path / "grpo").metrics_path)
    assert [row["rollout/failed"] for row in rows if "rollout/failed" in row] == [0.0] * 3
    assert any("heldout/reward" in row for row in rows)
    assert served.live == 0
