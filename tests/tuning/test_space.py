"""Spaces: what can be tried of a recipe, and that trying it changes the recipe and nothing else."""

import ast
from pathlib import Path

import pytest

import fettle
from fettle.config import dump, load, load_as, study
from fettle.config.study import Study
from fettle.errors import ConfigError
from fettle.tuning import check_space, overrides, seeded
from fettle.tuning.space import distributions

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPE = CONFIGS / "qwen3-gsm8k-grpo.yaml"
SPACE = {
    "optimizer.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-3, "log": True},
    "group_size": {"type": "int", "low": 2, "high": 9, "step": 3},
    "advantage": {"type": "categorical", "choices": ["group_normalized", "group_centered"]},
    "reduction.type": {"type": "categorical", "choices": ["token_mean", "sequence_mean"]},
}


def checked(space) -> None:
    check_space(Study.model_validate({"space": space}), lambda more: load(RECIPE, more))


def test_each_setting_alone_changes_the_recipe_in_its_own_place():
    checked(SPACE)
    before = dump(load(RECIPE)).splitlines()
    values = {
        "optimizer.learning_rate": 1.25e-5,
        "group_size": 5,
        "advantage": "group_centered",
        "reduction.type": "sequence_mean",
    }
    for path, value in values.items():
        after = dump(load(RECIPE, overrides({path: value}))).splitlines()
        changed = [new for old, new in zip(before, after, strict=True) if old != new]
        assert [line.strip() for line in changed] == [f"{path.rpartition('.')[2]}: {value}"]


def test_a_step_that_passes_over_the_end_stops_before_it():
    [size] = distributions(Study.model_validate({"space": {"group_size": SPACE["group_size"]}}).space).values()
    assert (size.low, size.high, size.step) == (2, 8, 3)


@pytest.mark.parametrize(
    ("space", "complaint"),
    [
        (
            {"optimizer.lr": SPACE["optimizer.learning_rate"]},
            r"study: optimizer\.lr=.*did you mean 'optimizer\.learning_rate'",
        ),
        ({"group_size": {"type": "int", "low": 0, "high": 4}}, r"space of the study: group_size=0"),
        (
            {"advantage": {"type": "categorical", "choices": ["group_centered", "best"]}},
            "'advantage' is 'best', which is none",
        ),
    ],
    ids=["unknown", "out of bounds", "no such choice"],
)
def test_what_the_recipe_does_not_have_or_take_is_told_before_anything_is_run(space, complaint):
    with pytest.raises(ConfigError, match=complaint):
        checked(space)


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("space: {}", "space is empty: name a setting in it"),
        ("space: {a: {type: float, low: 1, high: 1}}", "low is 1 and high 1, which leaves nothing to choose from"),
        ("space: {a: {type: float, low: 0, high: 1, log: true}}", "low is 0, which has no logarithm"),
        ("space: {a: {type: int, low: 1, high: 2, step: 2}}", "leaves nothing to choose from"),
        ("space: {a: {type: categorical, choices: [1]}}", "needs at least 2 item"),
        ("space: {a: {type: flaot, low: 1, high: 2}}", "did you mean float"),
        ("space: {a: {type: int, low: 1, high: 2}}\nseeds: [1, 1]", "seeds are 1, 1, of which some are the same"),
        ("space: {a: {type: int, low: 1, high: 2}}\nworkers: {type: rey}", "did you mean ray"),
        ("space: {a: {type: int, low: 1, high: 2}}\npruner: {type: median}", "did you mean 'pruning'"),
    ],
)
def test_what_is_wrong_with_a_study_is_one_sentence(tmp_path, written, complaint):
    (tmp_path / "study.yaml").write_text(written)
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_as(Study, tmp_path / "study.yaml")
    assert "\n" not in caught.value.message


def test_every_stage_of_a_pipeline_gets_the_seed():
    path = CONFIGS / "arithmetic-grpo.yaml"
    assert [stage.seed for stage in load(path, seeded(load(path), 7)).stages] == [7, 7]


@pytest.mark.parametrize("path", sorted((CONFIGS / "tune").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_study_fits_the_recipe_that_it_names(path):
    named = path.read_text().partition("configs/")[2].split()[0].rstrip(".,:")
    study_ = load_as(Study, path)
    check_space(study_, lambda more: load(CONFIGS / named, more))
    assert study_.space


def test_every_setting_of_a_study_is_read():
    package = Path(fettle.__file__).parent
    beside = (package / "cli" / f"{name}.py" for name in ("studied", "tune", "crews_on_ray"))
    rooms = [*package.glob("tuning/*.py"), *beside]
    trees = [ast.walk(ast.parse(room.read_text())) for room in rooms]
    read = {node.attr for tree in trees for node in tree if isinstance(node, ast.Attribute)}
    kinds = [kind for kind in vars(study).values() if isinstance(kind, type) and kind.__module__ == study.__name__]
    unread = {name for kind in kinds for name in kind.model_fields if name != "type"} - read
    assert unread == set()
