"""``fettle train``: a recipe in, a folder out that tells everything and replays."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from fettle.config.load import load
from fettle.tracking import read_metrics

from .conftest import trained


def told(folder) -> list[dict[str, float]]:
    """What a run's metrics say of anything but time."""
    rows = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith(("time", "speed"))} for row in rows]


def test_it_learns(run):
    rewards = [row["heldout/reward"] for row in told(run.folder) if "heldout/reward" in row]
    assert rewards[-1] > rewards[0] + 0.3


def test_it_says_where_to_look(run):
    assert f"what happened: runs/{run.folder.name}/report.md" in run.ended.out
    assert f"fettle sample runs/{run.folder.name} " in run.ended.out
    assert "finished 8 steps" in run.ended.out


def test_progress_goes_to_standard_error(run):
    assert "step 8/8" in run.ended.err
    assert len(run.ended.out.splitlines()) == 3


def test_everything_is_in_the_folder(run):
    here = {path.name for path in run.folder.iterdir() if not path.name.startswith(".")}
    files = {"config.yaml", "metrics.jsonl", "curves.png", "report.md", "summary.json", "provenance.json"}
    assert here == files | {"progress.json", "model", "checkpoints", "transcripts", "evaluations"}
    assert len(read_metrics(run.folder / "metrics.jsonl")) == 8 + 3
    with Image.open(run.folder / "curves.png") as curves:
        assert curves.width > 400
    assert len(list((run.folder / "transcripts").glob("step-*.md"))) == 3


def test_every_metric_is_explained_on_its_page(run, pipeline):
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    files = [run.folder / "metrics.jsonl", *pipeline.folder.glob("*/metrics.jsonl")]
    names = {name for path in files for row in read_metrics(path) for name in row}
    families = {name.rpartition("/")[0] for name in re.findall(r"`([a-z_/]+/)<[a-z]+>`", page)}
    unknown = {name for name in names if f"`{name}`" not in page and name.rpartition("/")[0] not in families}
    assert unknown == set()


def test_the_recipe_in_the_folder_is_the_one_that_ran(run):
    assert load(run.folder / "config.yaml") == load(run.desk / "tiny.yaml")


def test_it_says_what_it_was_made_with(run):
    [launch] = json.loads((run.folder / "provenance.json").read_text())["launches"]
    assert launch["command"] == ["fettle", "train", "tiny.yaml"]
    assert launch["versions"].keys() >= {"python", "fettle", "torch", "transformers"}
    assert launch["threads"] == 1
    questions = hashlib.sha256((run.desk / "questions.jsonl").read_bytes()).hexdigest()
    assert launch["data"] == {"questions.jsonl": questions}


def test_every_held_out_episode_is_kept(run):
    pages = sorted((run.folder / "evaluations").iterdir())
    assert [page.name for page in pages] == ["step-000000.jsonl", "step-000004.jsonl", "step-000008.jsonl"]
    episodes = [[json.loads(line) for line in page.read_text().splitlines()] for page in pages]
    assert [len({episode["task"] for episode in page}) for page in episodes] == [6, 6, 6]
    last = json.loads((run.folder / "summary.json").read_text())["last"]["heldout/reward"]
    assert sum(episode["reward"] for episode in episodes[-1]) / 6 == pytest.approx(last)


def test_checkpoints_are_the_newest_two_and_the_best(run):
    summary = json.loads((run.folder / "summary.json").read_text())
    kept = sorted(path.name for path in (run.folder / "checkpoints").iterdir())
    assert kept == ["step-000004", "step-000008"]
    assert summary["best_checkpoint"] == summary["checkpoint"] == f"runs/{run.folder.name}/checkpoints/step-000008"
    assert summary["interrupted"] is False


def test_the_recipe_in_the_folder_replays_the_run(run, fettle, desk):
    again = fettle("train", run.folder / "config.yaml")
    assert again.code == 0, again.err
    [folder] = (desk / "runs").iterdir()
    assert told(folder) == told(run.folder)


@pytest.fixture
def threads() -> Iterator[None]:
    """Torch's threads are the process's: what a run sets is put back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_an_override_changes_the_run_and_stands_in_its_recipe(desk):
    done = trained("tiny.yaml", desk, "steps=1", "seed=7", "engine.threads=2")
    written = yaml.safe_load((done.folder / "config.yaml").read_text())
    assert (written["steps"], written["seed"]) == (1, 7)
    assert json.loads((done.folder / "provenance.json").read_text())["launches"][0]["threads"] == 2
    assert len(read_metrics(done.folder / "metrics.jsonl")) == 1 + 2


def test_two_runs_never_share_a_folder(fettle, desk):
    for _ in range(2):
        assert fettle("train", "tiny.yaml", "steps=1").code == 0
    folders = sorted((desk / "runs").iterdir())
    assert [len(read_metrics(folder / "metrics.jsonl")) for folder in folders] == [3, 3]


def test_runs_may_be_kept_elsewhere(fettle, desk):
    done = fettle("train", "tiny.yaml", "steps=1", "--runs", "else where/runs")
    [folder] = (desk / "else where" / "runs").iterdir()
    assert f"fettle sample 'else where/runs/{folder.name}' " in done.out


def test_stages_go_on_from_one_another(pipeline):
    stages = ("warm-up", "grpo")
    summaries = [json.loads((pipeline.folder / stage / "summary.json").read_text()) for stage in stages]
    assert [summary["steps"] for summary in summaries] == [3, 2]
    second = load(pipeline.folder / "grpo" / "config.yaml")
    assert second.policy.model == summaries[0]["checkpoint"]
    assert not (pipeline.folder / "grpo" / "model").exists()
    assert "finished 5 steps" in pipeline.ended.out
    report = (pipeline.folder / "report.md").read_text()
    assert "warm-up/report.md" in report
    assert "grpo/report.md" in report


def test_a_pipelines_recipe_replays_it(pipeline, fettle, desk):
    assert fettle("train", pipeline.folder / "config.yaml").code == 0
    [folder] = (desk / "runs").iterdir()
    assert [told(folder / stage) for stage in ("warm-up", "grpo")] == [
        told(pipeline.folder / stage) for stage in ("warm-up", "grpo")
    ]


def test_a_run_goes_on_from_the_best_weights_of_another(run, desk):
    model = str(run.folder.resolve())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.desk)  # a run's summary names its checkpoints from where it was started
        best = str(Path(json.loads((run.folder / "summary.json").read_text())["best_checkpoint"]).resolve())
    done = trained("tiny.yaml", desk, f"policy.model={model}", "steps=1")
    assert load(done.folder / "config.yaml").policy.model == best
    first = json.loads((done.folder / "summary.json").read_text())["first"]["heldout/reward"]
    assert first == told(run.folder)[-1]["heldout/reward"]


def test_a_run_folder_without_a_checkpoint_is_nothing_to_go_on_from(run, fettle, desk):
    shutil.copytree(run.folder, desk / "earlier", ignore=shutil.ignore_patterns("progress.json"))
    done = fettle("train", "tiny.yaml", "policy.model=earlier")
    assert done.code == 1
    assert "the run in earlier has no checkpoint yet" in done.complaint


def test_why_episodes_failed_is_told_in_the_folder(desk):
    done = trained("tiny.yaml", desk, "environments.0.reward=beside:fickle", "steps=2", "evaluation.every=2")
    failures = [json.loads(line) for line in (done.folder / "failures.jsonl").read_text().splitlines()]
    rows = told(done.folder)
    counted = sum(32 * row.get("rollout/failed", 0) + row.get("heldout/failed", 0) for row in rows)
    assert len(failures) == pytest.approx(counted)
    assert {failure["phase"] for failure in failures} == {"training", "evaluation"}
    assert all(failure["reason"].endswith("KeyError: 'no such column'") for failure in failures)
    report = (done.folder / "report.md").read_text()
    assert f"{len(failures)} episodes failed, and are in no reward above" in report
    assert "`reward beside:fickle raised on task " in report


def test_a_run_that_can_learn_nothing_says_so(desk):
    done = trained("tiny.yaml", desk, "environments.0.reward=exact_match", "steps=3", "sampling.max_tokens=2")
    assert done.ended.err.count("warning: nothing can be learned: ") == 1
    assert "Warning: nothing can be learned: " in (done.folder / "report.md").read_text()
