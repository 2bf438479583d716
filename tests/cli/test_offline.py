"""``fettle train`` on what is there already: pairs, ratings, episodes; and what is wrong with them, in one sentence."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from fettle.tracking import read_metrics

from .conftest import Ended, typed

RECIPE = """\
type: %(type)s
name: compared
policy: {model: {type: tiny, hidden: 32, layers: 1, heads: 2}}
engine: {threads: 1}
data: {type: %(data)s, path: %(data)s.jsonl, heldout: 4}
steps: 4
batch_size: 4
max_tokens: 64
optimizer: {learning_rate: 3e-3}
evaluation: {every: 2}
checkpoints: {every: 2}
"""

PAIRS = [
    {"prompt": f"Paint {n} red", "chosen": f"{n} is red", "rejected": f"{n} is blue", "margin": 0.5} for n in range(12)
]
RATINGS = [{"prompt": f"Paint {n} red", "completion": f"{n} is red", "label": n % 2 == 0} for n in range(12)]
EPISODES = [
    {
        "messages": [
            {"role": "user", "content": f"Room {n}"},
            {"role": "assistant", "content": "left"},
            {"role": "tool", "content": "a wall"},
        ],
        "reward": float(n % 2),
    }
    for n in range(12)
]


def written(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe for each kind of run, and its data; tests write nothing into these."""
    folder = tmp_path_factory.mktemp("offline")
    for name, kind, data in (
        ("preference", "preference", "preferences"),
        ("kto", "preference", "ratings"),
        ("reward", "reward_model", "preferences"),
        ("episodes", "sft", "episodes"),
    ):
        (folder / f"{name}.yaml").write_text(RECIPE % {"type": kind, "data": data})
    (folder / "kto.yaml").write_text((folder / "kto.yaml").read_text() + "loss: {type: kto}\n")
    written(folder / "preferences.jsonl", PAIRS)
    written(folder / "ratings.jsonl", RATINGS)
    written(folder / "episodes.jsonl", EPISODES)
    return folder


def train(desk: Path, *arguments: object, runs: str) -> Ended:
    return typed("train", *arguments, "--runs", runs, into=desk)


@pytest.fixture(scope="module")
def runs(desk: Path) -> dict[str, Path]:
    """A finished run of each kind, by the name of its recipe."""
    folders = {}
    for name in ("preference", "kto", "reward", "episodes"):
        ended = train(desk, f"{name}.yaml", runs=f"runs-{name}")
        assert ended.code == 0, ended.err
        [folders[name]] = (desk / f"runs-{name}").iterdir()
    return folders


def test_every_kind_of_run_leaves_its_checkpoints_and_its_evaluations(runs):
    for name, folder in runs.items():
        rows = read_metrics(folder / "metrics.jsonl")
        assert [row["step"] for row in rows if "heldout/loss" in row] == [0, 2, 4]
        assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
        assert (folder / "checkpoints" / "step-000004").is_dir()
        assert ("heldout/accuracy" in rows[0]) == (name != "episodes")
        assert ("heldout/calibration_error" in rows[0]) == (name == "reward")


def test_every_metric_is_explained_on_its_page(runs):
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    names = {name for folder in runs.values() for row in read_metrics(folder / "metrics.jsonl") for name in row}
    explained = set(re.findall(r"`([a-z_0-9/]+)`", page))
    assert names - explained == set()


def test_the_data_s_files_are_in_the_provenance(runs, desk):
    for name, data in (("preference", "preferences"), ("kto", "ratings"), ("episodes", "episodes")):
        [launch] = json.loads((runs[name] / "provenance.json").read_text())["launches"]
        digest = hashlib.sha256((desk / f"{data}.jsonl").read_bytes()).hexdigest()
        assert launch["data"] == {f"{data}.jsonl": digest}


def test_a_finished_run_is_a_reference_to_learn_against(runs, desk):
    learned, model = runs["episodes"], runs["episodes"] / "model"
    done = train(desk, "preference.yaml", f"policy.model={model}", f"reference={learned}", runs="again")
    assert done.code == 0, done.err
    [folder] = (desk / "again").iterdir()
    assert read_metrics(folder / "metrics.jsonl")[0]["heldout/margin"] != 0  # not what this run starts from


@pytest.mark.parametrize(
    ("recipe", "override", "sentence"),
    [
        ("preference", "loss.label_smoothing=0.5", "loss.label_smoothing"),
        ("preference", "loss={type: ipo}", "did you mean"),
        ("preference", "loss={type: dpo, variant: hinge, label_smoothing: 0.1}", "of no use to the variant hinge"),
        ("preference", "loss={type: kto}", "kto learns from ratings, and the other losses from pairs"),
        ("kto", "batch_size=1", "use a batch_size of 2 or more"),
        ("preference", "evaluation.target=1.5", "evaluation.target"),
        ("reward", "data={type: ratings, path: x.jsonl}", "a reward model compares two replies"),
        ("episodes", "targets={actions: 0}", "nothing would be learned"),
    ],
)
def test_a_setting_that_is_wrong_ends_with_2(desk, recipe, override, sentence):
    done = train(desk, f"{recipe}.yaml", override, runs="none")
    assert done.code == 2
    assert sentence in done.complaint


def test_a_reference_that_nobody_reads_ends_with_2(desk):
    done = train(desk, "preference.yaml", "loss={type: simpo}", "reference=model", runs="none")
    assert done.code == 2
    assert "reference is model, and this simpo compares with none: leave it out" in done.complaint


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("./nowhere", "there is no model folder ./nowhere: give a folder"),
        ("nobody/nothing", "there is no folder nobody/nothing, and the hub gave no model of that name"),
    ],
)
def test_a_reference_that_does_not_exist(desk, reference, sentence):
    done = train(desk, "preference.yaml", f"reference={reference}", runs="none")
    assert done.code == 1
    assert sentence in done.complaint
    assert list(desk.glob("none/*")) == []


def test_a_reference_with_another_tokenizer(desk, runs):
    """The tiny model of the run on episodes had other texts to fit its tokenizer to."""
    done = train(desk, "preference.yaml", f"reference={runs['episodes'] / 'model'}", runs="none")
    assert done.code == 1
    assert re.search(r"the tokenizer of .* is not that of .*; they differ in '.+' and \d+ more tokens", done.complaint)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"prompt": "Paint", "chosen": "red"}, "spoilt.jsonl:13: rejected is missing: a pair is chosen and rejected"),
        ({"prompt": "Paint", "rejected": "red"}, "spoilt.jsonl:13: chosen is missing: a pair is chosen and rejected"),
        ({"prompt": "Paint", "chosen": "", "rejected": "red"}, "spoilt.jsonl:13: chosen"),
        ({"prompt": "Paint", "chosen": "red", "rejected": "red"}, "are the same, and so nothing is preferred"),
        (
            {"prompt": "Paint at length", "chosen": "red " * 80, "rejected": "blue"},
            "pairs are longer than max_tokens, which is 64: the first begins 'Paint at length'",
        ),
    ],
)
@pytest.mark.parametrize("recipe", ["preference", "reward"])
def test_a_pair_that_is_none_ends_with_1_and_leaves_nothing(desk, recipe, row, sentence):
    written(desk / "spoilt.jsonl", [*PAIRS, row])
    done = train(desk, f"{recipe}.yaml", "data.path=spoilt.jsonl", runs="none")
    assert done.code == 1
    assert sentence in done.complaint
    assert list(desk.glob("none/*")) == []


def test_a_rating_that_is_neither_good_nor_bad(desk):
    written(desk / "spoilt.jsonl", [*RATINGS, {"prompt": "Paint", "completion": "red", "label": 1}])
    done = train(desk, "kto.yaml", "data.path=spoilt.jsonl", runs="none")
    assert done.code == 1
    assert "spoilt.jsonl:13: label is 1: it must be true for a good reply or false for a bad one" in done.complaint


def test_rewards_that_weigh_nothing(desk):
    """They reach the loop from the file, and only where the recipe asks to weigh by them."""
    written(desk / "spoilt.jsonl", [{**row, "reward": 0.0} for row in EPISODES])
    done = train(desk, "episodes.yaml", "data.path=spoilt.jsonl", "weighting={kind: reward}", runs="none")
    assert done.code == 1
    assert "every reward is 0, and so nothing weighs anything" in done.complaint
    assert list(desk.glob("none/*")) == []
