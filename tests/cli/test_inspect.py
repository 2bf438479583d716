"""The verbs that look: ``plan``, ``config``, ``info`` and ``runs``."""

import json
import platform
import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from fettle.config import Pipeline, TinyModel, leaves
from fettle.config.load import load
from fettle.engine.local import make_tiny_model
from fettle.sandbox import isolation
from fettle.tracking import list_runs
from fettle.tracking.claim import claim
from tests.service.served import serving

from .conftest import typed

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
AT_A_SERVICE = ROOT / "configs" / "arithmetic-service.yaml"


def named(path: Path) -> str:
    return path.name


def settings_of(recipe: Path) -> set[str]:
    """Every setting of its stages, by the last part of its name."""
    config = load(recipe)
    stages = config.stages if isinstance(config, Pipeline) else (config,)
    return {name for stage in stages for _, _, name, _ in leaves(stage)} - {"type"}


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe != AT_A_SERVICE], ids=named)
def test_a_shipped_recipe_is_planned_with_a_reader_for_each_setting(fettle, recipe):
    done = fettle("plan", recipe)
    assert done.code == 0, done.err
    columns = [re.match(r"([a-z_.0-9]+) +[a-z_.]+ ", line) for line in done.out.splitlines()]
    rows = [(found[1], found.end()) for found in columns if found]
    shown = {key.rpartition(".")[2] for key, _ in rows}
    assert settings_of(recipe) - shown <= {"model"}  # the settings of the model that `previous` stands for are shown
    assert max(width for _, width in rows) < 76
    for line in ("evaluations: ", "checkpoints: every", "memory in all: about"):
        assert line in done.out


def test_a_recipe_at_a_service_is_planned_with_what_the_service_can_do(fettle, tmp_path, monkeypatch):
    model = make_tiny_model(TinyModel(hidden=32, layers=1, heads=2), tmp_path / "tiny", texts=["one two"] * 9)
    with serving(tmp_path / "state", model) as service:
        monkeypatch.setenv("FETTLE_KEY", service.key)
        place = [f"stages.{stage}.engine.url={service.url}" for stage in (0, 1)]
        done = fettle("plan", AT_A_SERVICE, *place)
        assert done.code == 0, done.err
        assert re.search(rf"^engine\.url +cli\.engines +{service.url}$", done.out, re.MULTILINE)
        assert "memory" not in done.out
    gone = fettle("plan", AT_A_SERVICE, *place)
    assert gone.complaint.startswith(f"{service.url} cannot be reached")
    monkeypatch.delenv("FETTLE_KEY")
    assert "there is no such environment variable" in fettle("plan", AT_A_SERVICE).complaint


def test_a_recipe_for_a_gpu_is_planned_where_there_is_none(fettle, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = fettle("plan", ROOT / "configs" / "qwen3-gsm8k-grpo.yaml")
    assert done.code == 0, done.err
    assert "note: there is no cuda device here: the plan is for a machine that has one\n" in done.out
    assert "sampled tokens a step: at most 256 x 2048 = 524288" in done.out


def test_a_plan_allocates_nothing(fettle, desk):
    before = set(desk.rglob("*"))
    assert fettle("plan", "tiny.yaml").code == 0
    assert set(desk.rglob("*")) == before


def test_values_are_shown_as_they_are(fettle):
    done = fettle("plan", "tiny.yaml", 'sampling.stop=["[/INST]"]', "policy.lora=null")
    assert done.code == 0, done.err
    assert '["[/INST]"]' in done.out
    assert " null\n" in done.out


@pytest.mark.parametrize("recipe", RECIPES, ids=named)
def test_what_config_show_prints_is_the_same_recipe(fettle, desk, recipe):
    (desk / "shown.yaml").write_text(fettle("config", "show", recipe).out)
    assert load(desk / "shown.yaml") == load(recipe)


def test_config_show_lays_overrides_over(fettle, desk):
    (desk / "shown.yaml").write_text(fettle("config", "show", "tiny.yaml", "policy.lora.rank=4", "preset=rloo").out)
    assert load(desk / "shown.yaml") == load(desk / "tiny.yaml", ["policy.lora.rank=4", "preset=rloo"])


def test_the_schema_is_json(fettle):
    schema = json.loads(fettle("config", "schema").out)
    assert {"RLRun", "SFTRun", "Pipeline"} <= schema["$defs"].keys()


def test_info_tells_what_is_here(fettle):
    facts = json.loads(fettle("info", "--json").out)
    assert facts["python"] == platform.python_version()
    assert facts["torch"] == version("torch")
    assert len(facts["gpus"]) == torch.cuda.device_count()
    assert facts["sandbox"] == str(isolation())


@pytest.fixture
def without_gym(monkeypatch):
    """Nothing can import reasoning_gym."""
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)


def test_info_tells_of_an_extra_that_is_here(fettle):
    pytest.importorskip("reasoning_gym")
    assert json.loads(fettle("info", "--json").out)["extras"] == {"gym": version("reasoning-gym")}


def test_info_tells_of_an_extra_that_is_not(fettle, without_gym):
    assert json.loads(fettle("info", "--json").out)["extras"] == {"gym": None}
    assert "gym absent (pip install fettle[gym])" in fettle("info").out


def test_runs_lists_what_is_there(run):
    header, line = typed("runs", into=run.desk).out.splitlines()
    assert header.split() == ["run", "kind", "status", "steps", "reward", "started"]
    assert line.split()[:4] == [run.folder.name, "rl", "finished", "8"]
    [found] = json.loads(typed("runs", "--json", into=run.desk).out)
    assert found["name"] == run.folder.name
    assert found["reward"] == pytest.approx(float(line.split()[4]), abs=5e-4)


def test_runs_tells_those_that_go_on_from_those_that_stopped(run, desk):
    for name in ("finished", "running", "stopped"):
        shutil.copytree(run.folder, desk / "kept" / name)
    (desk / "kept" / "stopped" / "summary.json").unlink()
    with claim(desk / "kept" / "running"):
        done = typed("runs", "--runs", "kept", "--json", into=desk)
    assert {found["name"]: found["status"] for found in json.loads(done.out)} == {
        "finished": "finished",
        "running": "running",
        "stopped": "interrupted",
    }


def test_names_are_never_cut_short(run, desk):
    name = "a-recipe-with-a-name-that-goes-on-and-on-" * 3
    shutil.copytree(run.folder, desk / "runs" / name)
    assert name in typed("runs", into=desk).out


def test_no_runs_is_told(fettle, desk):
    done = fettle("runs")
    assert done.code == 0
    assert done.out.startswith("no runs in runs: start one with fettle demo")
    assert json.loads(fettle("runs", "--json").out) == []
    assert list_runs(desk / "runs") == []
