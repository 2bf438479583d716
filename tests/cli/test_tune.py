"""``fettle tune``: what the page on it shows, in small; what it leaves; and what it says of what cannot be."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from fettle.cli.sources import comparisons_of, conversations_of
from fettle.config import (
    Arithmetic,
    Conversations,
    Debate,
    Episodes,
    Preferences,
    WorkedDebates,
    WorkedPairs,
    WorkedSums,
)
from fettle.tracking import read_metrics
from tests.cli.conftest import Done, furnished, typed

PAGE = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
SMALL = ["steps=2", "evaluation.every=1", "data.size=64", "data.tasks.heldout=8"]


def write_study(desk: Path, *, trials: int, more: str = "") -> None:
    """The recipe and the study of the page, with fewer trials, and two seeds."""
    recipe, tried, *_ = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (desk / "sums.yaml").write_text(recipe)
    fewer = tried.replace("trials: 16", f"trials: {trials}").replace("101, 102, 103", "101, 102")
    (desk / "study.yaml").write_text(fewer + more)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Done:
    """The study of the page, with runs of two steps."""
    desk = furnished(tmp_path_factory.mktemp("tune"))
    write_study(desk, trials=2)
    ended = typed("tune", "sums.yaml", *SMALL, "--study", "study.yaml", into=desk)
    assert ended.code == 0, ended.err
    [folder] = (desk / "studies").iterdir()
    return Done(desk, folder, ended)


def test_each_trial_is_a_run_of_its_own_with_the_settings_that_were_proposed(study):
    told = json.loads((study.folder / "study.json").read_text())
    folders = {line["folder"] for line in told["trials"]}
    assert len(folders) == 2
    for line in told["trials"]:
        rows = read_metrics(study.folder / "trials" / line["folder"] / "metrics.jsonl")
        assert [row["heldout/loss"] for row in rows if "heldout/loss" in row][-1] == line["value"]
        config = (study.folder / "trials" / line["folder"] / "config.yaml").read_text()
        assert f"batch_size: {line['parameters']['batch_size']}\n" in config
        assert "  half: first\n" in config
    assert told["best"] == min(told["trials"], key=lambda line: line["value"])["number"]


def test_the_best_is_run_beside_the_recipe_on_the_same_seeds(study):
    told = json.loads((study.folder / "study.json").read_text())
    assert list(told["sides"]) == ["best", "recipe", "difference"]
    assert all(list(side["values"]) == ["101", "102"] for side in told["sides"].values())
    finals = [path.read_text() for path in (study.folder / "finals").glob("*/config.yaml")]
    assert len(finals) == sum("  half: second\n" in config for config in finals) == 4
    assert "the recipe's own" in study.ended.out
    assert (study.folder / "study.png").read_bytes().startswith(b"\x89PNG")
    with (study.folder / "trials.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2


def test_a_recipe_that_is_scored_on_a_half_already_is_refused(study):
    ended = typed("tune", "sums.yaml", "evaluation.half=first", "--study", "study.yaml", into=study.desk)
    assert (ended.code, "leave it out" in ended.complaint) == (2, True)


def test_a_study_that_is_over_is_told_again_and_nothing_is_run(study):
    before = sorted(study.folder.rglob("metrics.jsonl"))
    again = typed("tune", "--resume", study.folder, into=study.desk)
    assert (again.code, again.out) == (0, study.ended.out.replace("studies/", f"{study.folder.parent}/"))
    assert sorted(study.folder.rglob("metrics.jsonl")) == before


AWAY = "trackers: [{type: mlflow, uri: 'http://127.0.0.1:9'}]\n"
"""Where nothing listens."""


def test_a_study_that_is_refused_for_its_tracker_leaves_nothing(fettle, desk):
    write_study(desk, trials=2)
    ended = fettle("tune", "sums.yaml", *SMALL, AWAY.strip().replace(": ", "=", 1), "--study", "study.yaml")
    assert (ended.code in (1, 2), "mlflow" in ended.complaint) == (True, True)
    assert list((desk / "studies").iterdir()) == []


def test_a_tracker_that_is_away_at_the_end_keeps_nothing_from_being_told(study, tmp_path, caplog):
    folder = shutil.copytree(study.folder, tmp_path / study.folder.name)
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace("trackers: []\n", AWAY))
    again = typed("tune", "--resume", folder, into=study.desk)
    assert (again.code, again.out) == (0, study.ended.out.replace("studies/", f"{tmp_path}/"))
    assert "it is not told how the study ended" in caplog.text


def test_a_metric_that_no_run_has_is_told_with_those_it_has(study):
    (study.desk / "wrong.yaml").write_text("space: {batch_size: {type: int, low: 4, high: 8}}\nmetric: heldout/los\n")
    ended = typed("tune", "sums.yaml", *SMALL, "--study", "wrong.yaml", into=study.desk)
    assert ended.code == 2
    assert "metric is heldout/los, which the recipe's runs do not measure: they have heldout/loss" in ended.complaint


def test_a_path_that_does_not_exist_is_told_before_anything_is_made(fettle, desk):
    (desk / "study.yaml").write_text("space: {optimizer.lr: {type: float, low: 0.1, high: 0.2}}\n")
    ended = fettle("tune", "tiny.yaml", "--study", "study.yaml")
    assert ended.code == 2
    assert "did you mean 'optimizer.learning_rate'?" in ended.complaint
    assert not (desk / "studies").exists()


def test_without_optuna_the_extra_is_named(fettle, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "optuna" or "tuning" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "fettle.cli.studied", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    ended = fettle("tune", "tiny.yaml", "--study", "study.yaml")
    assert (ended.code, "pip install 'fettle[tune]'" in ended.complaint) == (2, True)


@pytest.mark.parametrize("arguments", [["tiny.yaml"], ["--resume", "here", "tiny.yaml"], []])
def test_what_is_missing_is_told(fettle, arguments):
    assert fettle("tune", *arguments).code == 2


def test_what_is_no_study_is_told(fettle, desk):
    assert "is no study's folder" in fettle("tune", "--resume", desk).complaint


ROWS = [{"prompt": f"What is {n // 2}?", "chosen": f"{n}", "rejected": "no"} for n in range(24)]
TALKS = [
    {"messages": [{"role": "user", "content": each["prompt"]}, {"role": "assistant", "content": "so"}]} for each in ROWS
]


@pytest.mark.parametrize(
    ("parts", "data"),
    [
        (comparisons_of, lambda path: Preferences(path=path, heldout=6)),
        (conversations_of, lambda path: Conversations(path=path, heldout=6)),
        (conversations_of, lambda path: Episodes(path=path, heldout=6)),
        (conversations_of, lambda _: WorkedDebates(tasks=Debate(heldout=5), size=2)),
        (conversations_of, lambda _: WorkedSums(tasks=Arithmetic(heldout=5), size=2)),
        (comparisons_of, lambda _: WorkedPairs(tasks=Arithmetic(heldout=5), size=2)),
    ],
    ids=["preferences", "conversations", "episodes", "debates", "sums", "pairs"],
)
def test_trials_and_finals_are_scored_on_halves_that_ask_nothing_in_common(tmp_path, parts, data):
    path = tmp_path / "rows.jsonl"
    rows = ROWS if parts is comparisons_of else [{**talk, "reward": 1.0} for talk in TALKS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [parts(data(str(path)), (), half) for half in (None, "first", "second")]
    assert found[0][0] == found[1][0] == found[2][0]
    whole, first, second = ([_asked(row) for row in scored] for _, scored in found)
    assert (len(first) + len(second), bool(first), bool(second)) == (len(whole), True, True)
    assert not set(first) & set(second)


def _asked(row) -> str:
    return str(getattr(row, "prompt", None) or row[:-1])
