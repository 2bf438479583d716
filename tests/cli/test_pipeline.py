"""``fettle pipeline``: three stages in a row, killed and gone on with, and one table at the end."""

import json
import shutil
import time
from pathlib import Path

import pytest
import yaml

from fettle.config.load import load
from fettle.tracking import list_runs, read_metrics
from tests.forked import Forked

from .conftest import furnished, typed

RECIPE = """\
type: pipeline
name: three-stages
stages:
  - type: sft
    name: warm-up
    policy: {model: {type: tiny, hidden: 32, layers: 1, heads: 2}}
    engine: {threads: 1}
    data: {type: worked_sums, tasks: &sums {type: arithmetic, digits: 1, heldout: 8, system: null}, size: 40}
    steps: 2
    batch_size: 4
    optimizer: {learning_rate: 1e-3}
  - type: reward_model
    name: judge
    policy: {model: previous}
    engine: {threads: 1}
    data: {type: worked_pairs, tasks: *sums, size: 64}
    steps: 8
    batch_size: 8
    optimizer: {learning_rate: 3e-3}
    evaluation: {every: 4}
    checkpoints: {every: 2}
  - type: rl
    name: ppo
    policy: {model: stage:warm-up}
    engine: {threads: 1}
    environments: [*sums]
    preset: ppo
    reward_model: {model: stage:judge, clip: 2.0}
    steps: 2
    groups_per_step: 2
    group_size: 2
    sampling: {max_tokens: 6}
    evaluation: {every: 2, tasks: 8}
"""


def chain(folder: Path) -> dict:
    """What each stage started from and what it left, by digest."""
    stages = json.loads((folder / "pipeline.json").read_text())["stages"]
    return {
        name: ({key: each["digest"] for key, each in stage["started_from"].items()}, stage["left"]["digest"])
        for name, stage in stages.items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a pipeline that ran undisturbed, and what it said."""
    desk = furnished(tmp_path_factory.mktemp("whole"))
    (desk / "three.yaml").write_text(RECIPE)
    ended = typed("pipeline", "three.yaml", into=desk)
    assert ended.code == 0, ended.err
    [folder] = (desk / "runs").iterdir()
    return folder, ended


def test_it_ends_with_a_table_of_every_stage(whole):
    folder, ended = whole
    report, summary = (folder / "report.md").read_text(), json.loads((folder / "summary.json").read_text())
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines() if line.startswith("|")]
    told = [(stage, measure) for stage, measure, *_ in rows[2:]]
    assert told == [
        ("[warm-up](warm-up/report.md)", "loss"),
        ("", "true reward"),
        ("", "learned reward"),
        ("", "KL from start, k1"),
        ("[judge](judge/report.md)", "accuracy"),
        ("[ppo](ppo/report.md)", "true reward"),
        ("", "learned reward"),
        ("", "KL from start, k1"),
    ]
    for stage, (_, digest) in zip(summary["stages"], chain(folder).values(), strict=True):
        assert stage["digest"] == digest
        assert digest[:12] in report
        assert digest[:12] in ended.out
    for row in rows[2:]:
        assert all(cell in ended.out for cell in row[1:])


def test_the_tables_rows_compare(whole):
    """One stage's after is the next one's before, and both are what the last stage measured itself."""
    warm_up, judge, ppo = json.loads((whole[0] / "summary.json").read_text())["stages"]
    evaluated = [row for row in read_metrics(whole[0] / "ppo" / "metrics.jsonl") if "heldout/reward" in row]
    for metric in ("heldout/reward", "heldout/learned", "heldout/tokens_mean"):
        assert warm_up["after"][metric] == ppo["before"][metric] == evaluated[0][metric]
        assert ppo["after"][metric] == evaluated[-1][metric]
    assert warm_up["before"]["heldout/reward_high"] > 0
    assert "heldout/reward" not in judge["after"]
    assert judge["after"]["heldout/accuracy"] == max(
        row["heldout/accuracy"] for row in read_metrics(whole[0] / "judge" / "metrics.jsonl") if "heldout/loss" in row
    )
    assert abs(ppo["after"]["heldout/kl"]) < warm_up["after"]["heldout/kl"]
    assert "heldout/kl" not in ppo["before"]  # which would be the warm-up's


def test_stages_start_from_what_is_named(whole):
    folder, _ = whole
    found = chain(folder)
    assert found["judge"][0] == {"policy.model": found["warm-up"][1]}
    assert found["ppo"][0] == {"policy.model": found["warm-up"][1], "reward_model.model": found["judge"][1]}
    assert load(folder / "ppo" / "config.yaml").reward_model.model.startswith(f"runs/{folder.name}/judge/checkpoints/")


def test_a_pipeline_that_is_killed_in_its_second_stage_goes_on_to_the_same_digests(whole, tmp_path):
    """In the same place, for a checkpoint says where the model it began with lies."""
    folder, desk = whole[0], whole[0].parents[1]
    straight = chain(folder)
    aside = folder.rename(tmp_path / "straight")
    folder.mkdir()
    shutil.copy(aside / "config.yaml", folder)
    again = ["pipeline", "--resume", f"runs/{folder.name}"]
    with Forked(*again, cwd=desk) as process:
        while not list(folder.glob("judge/checkpoints/step-00000[1-9]")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    try:
        assert json.loads((folder / "pipeline.json").read_text())["stages"]["judge"]["left"] is None
        assert list_runs(desk / "runs")[0].status == "interrupted"
        assert typed(*again, into=desk).code == 0
        assert chain(folder) == straight
        assert list_runs(desk / "runs")[0].status == "finished"
        assert len(json.loads((folder / "warm-up" / "provenance.json").read_text())["launches"]) == 1
    finally:
        shutil.rmtree(folder)
        aside.rename(folder)


def test_an_artifact_that_was_changed_is_refused(whole, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(whole[0], folder)
    (folder / "summary.json").unlink()  # as if it had been killed before its end
    weights = next((folder / "warm-up" / "checkpoints" / "step-000002").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    ended = typed("pipeline", "--resume", folder, into=tmp_path)
    assert ended.code == 1
    assert "is not what was saved (its hash differs from manifest.json)" in ended.complaint


def test_a_run_is_a_reward_model_by_its_folders_name(whole, tmp_path):
    """A stage's folder, or the name of a run beside which it is typed."""
    desk = furnished(tmp_path / "desk")
    (desk / "runs").mkdir()
    shutil.copytree(whole[0] / "judge", desk / "runs" / "my-judge")
    shutil.copytree(whole[0] / "warm-up", desk / "runs" / "my-policy")
    stage = yaml.safe_load(RECIPE)["stages"][2]
    settings = {**stage, "policy": {"model": "my-policy"}, "reward_model": {"model": "my-judge"}, "steps": 1}
    (desk / "rl.yaml").write_text(yaml.safe_dump(settings))
    ended = typed("train", "rl.yaml", into=desk)
    assert ended.code == 0, ended.err
    assert len(list(desk.glob("runs/ppo-*/checkpoints/step-000001"))) == 1


def test_a_reward_model_is_no_policy_and_a_policy_no_reward_model(whole):
    folder = whole[0]
    desk = folder.parents[1]
    (desk / "rl.yaml").write_text(yaml.safe_dump(yaml.safe_load(RECIPE)["stages"][2]))
    before = set((desk / "runs").iterdir())
    taken = typed("train", "rl.yaml", f"policy.model={folder / 'judge'}", f"reward_model.model={folder}", into=desk)
    assert taken.code == 1
    assert taken.complaint.startswith("ppo: policy.model is ")
    assert taken.complaint.endswith("a reward model, which scores replies and writes none: name a policy")
    taken = typed("train", "rl.yaml", f"policy.model={folder}", f"reward_model.model={folder}", into=desk)
    assert taken.complaint.endswith("which gives no scores: name a run of type reward_model")
    assert set((desk / "runs").iterdir()) == before
    sampled = typed("sample", folder / "judge", "hello", into=desk)
    assert sampled.code == 1
    assert "a reward model, which scores replies and writes none" in sampled.complaint


def test_a_reward_models_score_is_where_eval_says(whole):
    folder = whole[0] / "judge"
    done = typed("eval", folder, into=whole[0].parents[1])
    assert done.code == 2
    assert done.complaint == (
        f"{folder} is a reward model, which scores replies and writes none: "
        f"its held-out accuracy stands in {folder / 'report.md'}"
    )
    assert "accuracy" in (folder / "report.md").read_text()
    (whole[0].parents[1] / "tasks.yaml").write_text((whole[0] / "ppo" / "config.yaml").read_text())
    done = typed("eval", folder, "--recipe", "tasks.yaml", into=whole[0].parents[1])
    assert "a reward model, which scores replies and writes none" in done.complaint


def test_a_reward_model_of_another_tokenizer_is_refused(whole, run, tmp_path):
    desk = furnished(tmp_path / "desk")
    stage = yaml.safe_load(RECIPE)["stages"][2]
    models = {"policy": {"model": str(run.folder / "model")}, "reward_model": {"model": str(whole[0] / "judge")}}
    (desk / "rl.yaml").write_text(yaml.safe_dump({**stage, **models}))
    ended = typed("train", desk / "rl.yaml", into=whole[0].parents[1])
    assert ended.code == 1
    assert "is not that of" in ended.complaint


@pytest.mark.parametrize("arguments", [("tiny.yaml",), ("--resume", "runs/one")])
def test_a_single_run_is_no_pipeline(arguments, fettle, desk):
    (desk / "runs" / "one").mkdir(parents=True)
    shutil.copy(desk / "tiny.yaml", desk / "runs" / "one" / "config.yaml")
    ended = fettle("pipeline", *arguments)
    assert ended.code == 2
    assert ended.complaint.endswith("is a single run of type rl, with no stages: use fettle train")
    assert fettle("pipeline").complaint.startswith("name a recipe (fettle pipeline configs/rlhf-three-stage.yaml)")
