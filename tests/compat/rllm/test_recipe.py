"""Every documented setting and flag changes the recipe, or what it says is done, or is refused with the reason."""

import json
from pathlib import Path

import pytest

from fettle.cli.issues import issues
from fettle.cli.recipes import shipped
from fettle.compat.rllm import MLIntegration, RLLMConfig, RLLMTrainer, get_deepcoder_config
from fettle.compat.rllm.config import (
    RLLMDistributedConfig,
    RLLMModelConfig,
    RLLMRewardConfig,
    RLLMTrainingConfig,
)
from fettle.compat.rllm.flags import Flags, carried_out, files, settings
from fettle.compat.rllm.material import Material, Problems, material
from fettle.compat.rllm.recipe import documented_base, kind_weights, recipe_base, system_of, write_recipe
from fettle.compat.rllm.study import write_study
from fettle.compat.rllm.train_rllm import DEFAULTS, flags_of, parser
from fettle.config import Pipeline, RLRun
from fettle.config.load import load, load_as
from fettle.config.study import Study
from fettle.data import conversations, episodes
from fettle.errors import ConfigError, DataError
from fettle.issues.examples import converted
from fettle.issues.examples import written as examples_written
from fettle.issues.trajectories import IssueTrajectory
from tests.issues.attempts import trajectory

PLACES = {
    "model.model_id": ("other/model-1B", "0.policy.model", "other/model-1B"),
    "model.max_seq_length": (1024, "0.max_tokens", 1024),
    "model.lora_r": (8, "1.policy.lora.rank", 8),
    "model.lora_alpha": (4.0, "0.policy.lora.alpha", 4.0),
    "model.lora_dropout": (0.5, "0.policy.lora.dropout", 0.5),
    "model.lora_target_modules": (["q_proj"], "1.policy.lora.targets", ("q_proj",)),
    "model.use_8bit": (True, "1.policy.quantization", "int8"),
    "model.use_4bit": (False, "0.policy.quantization", "int8"),
    "model.seed": (7, "1.seed", 7),
    "training.algorithm": ("grpo", "1.advantage", "group_normalized"),
    "training.learning_rate": (1e-3, "1.optimizer.learning_rate", 1e-3),
    "training.num_train_epochs": (5, "0.steps", 20),
    "training.per_device_train_batch_size": (3, "1.engine.train_tokens", 3072),
    "training.per_device_eval_batch_size": (2, "1.engine.sample_tokens", 16384),
    "training.gradient_accumulation_steps": (4, "0.batch_size", 12),
    "training.warmup_steps": (9, "0.schedule.warmup_steps", 9),
    "training.weight_decay": (0.2, "1.optimizer.weight_decay", 0.2),
    "training.save_steps": (11, "1.checkpoints.every", 11),
    "training.eval_steps": (12, "0.evaluation.every", 12),
    "training.save_total_limit": (4, "1.checkpoints.keep", 4),
    "training.fp16": (False, "0.policy.precision", "float32"),
    "training.lr_scheduler_type": ("linear", "1.schedule.type", "linear"),
    "training.max_grad_norm": (0.0, "1.optimizer.clip_norm", None),
    "training.early_stopping": (True, "1.evaluation.patience", 6),
    "training.early_stop_patience": (6, "0.evaluation.patience", 6),
    "training.system_prompt": ("", "1.environments.0.system", None),
    "reward.code_quality_weight": (0.6, "1.environments.0.credit.quality", 0.0625),
    "reward.test_coverage_weight": (0.6, "1.environments.0.credit.tests", 0.7501),
    "reward.readability_weight": (0.6, "1.environments.0.credit.readability", 0.0625),
    "reward.completion_time_weight": (0.1, "1.environments.0.rewards.1.scale", 0.02),
    "reward.kl_penalty_weight": (0.5, "1.loss.kl.coefficient", 0.5),
}
"""Other values than the documented defaults, and where in the stages of a recipe what becomes of them."""
SWITCHES = {
    "model.use_lora": ({"model": {"use_lora": False, "use_4bit": False}}, "0.policy.lora", None),
    "training.bf16": ({"training": {"bf16": True, "fp16": False}}, "1.policy.precision", "bfloat16"),
    "reward.use_kl_penalty": ({"reward": {"use_kl_penalty": False}}, "1.loss.kl", None),
}
"""What goes with none of the others."""
ELSEWHERE = {
    "model.output_dir": "where all is written",
    "training.report_to": "who is told of the numbers: below",
    "training.logging_steps": "refused",
    "training.optim": "has one value",
    "reward.bug_fix_weight": "what is shown",
    "reward.feature_weight": "what is shown",
    "reward.documentation_weight": "what is shown",
}
"""Settings that act, and not in the recipe."""
SECTIONS = {"model": RLLMModelConfig, "training": RLLMTrainingConfig, "reward": RLLMRewardConfig}
FIELDS = [f"{section}.{name}" for section, kind in SECTIONS.items() for name in kind.model_fields]


def learned(folder: Path) -> Material:
    """As if 40 rows and 12 problems were there."""
    there = Problems(folder / "p", folder / "h", folder, count=12, heldout=4)
    return Material(folder / "s", folder / "sh", 40, 5, False, False, there, {})


def resolved(folder: Path, config: RLLMConfig, **given) -> Pipeline:
    base = given.pop("base", None) or documented_base(config)
    return write_recipe(folder, base, config, learned(folder), **{"half_precision": True, **given})[1]


def at(pipeline: Pipeline, place: str):
    found = pipeline.stages
    for name in place.split("."):
        found = found[int(name)] if name.isdigit() else getattr(found, name)
    return found


@pytest.fixture(scope="module")
def documented(tmp_path_factory) -> Pipeline:
    return resolved(tmp_path_factory.mktemp("documented"), RLLMConfig())


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Pipeline:
    tree: dict[str, dict[str, object]] = {}
    for key, (value, _, _) in PLACES.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    return resolved(tmp_path_factory.mktemp("changed"), RLLMConfig.model_validate(tree))


@pytest.mark.parametrize("field", PLACES)
def test_every_setting_changes_the_recipe(documented, changed, field):
    value, place, becomes = PLACES[field]
    section, _, name = field.partition(".")
    assert SECTIONS[section].model_fields[name].default != value
    assert at(changed, place) == becomes
    assert at(documented, place) != becomes


@pytest.mark.parametrize("field", SWITCHES)
def test_every_switch_changes_the_recipe(tmp_path, documented, field):
    given, place, becomes = SWITCHES[field]
    assert at(resolved(tmp_path, RLLMConfig.model_validate(given), half_precision=False), place) == becomes
    assert at(documented, place) != becomes or field == "training.bf16"


def test_every_setting_is_in_one_of_the_tables():
    assert sorted([*PLACES, *SWITCHES, *ELSEWHERE]) == sorted(FIELDS)
    assert RLLMConfig.model_fields.keys() == {*SECTIONS, "distributed"}  # which is told of below
    assert RLLMDistributedConfig.model_fields


async def test_whoever_is_reported_to_is_a_tracker_of_each_stage_also_of_a_trainer_that_is_not_told(
    corpus, tmp_path, settings
):
    reported = settings.training.model_copy(update={"report_to": ("mlflow", "tensorboard")})
    config = settings.model_copy(update={"training": reported})
    await MLIntegration(config).setup_mlflow(experiment_name="mine", tracking_uri="sqlite:///here.db")
    files = [corpus.file(tmp_path / f"{at}.jsonl", at) for at in (0, 1)]
    _, pipeline, _ = RLLMTrainer(config, repository=corpus.repository).recipe(*files)
    for stage in pipeline.stages:
        mlflow, tensorboard = stage.trackers
        assert (mlflow.experiment, mlflow.uri, tensorboard.type) == ("mine", "sqlite:///here.db", "tensorboard")
    assert MLIntegration(settings).trackers() == []


@pytest.mark.parametrize("words", [["--no-mlflow"], []], ids=["documented", "over a recipe"])
async def test_an_experiment_that_nobody_is_told_of_is_refused(tmp_path, words):
    flags = flags_of([*words, "--experiment-name", "mine", "--train-path", "a", "--val-path", "b"])
    config = settings(flags, {})
    base = documented_base(config) if words else recipe_base(shipped("issues.yaml"), config)
    with pytest.raises(ConfigError, match="add --mlflow, or leave it out"):
        await carried_out(flags, config, base, print)


def test_the_weights_of_kinds_are_what_a_solution_counts_when_it_is_shown():
    config = RLLMConfig.model_validate(
        {"reward": {"bug_fix_weight": 2, "feature_weight": 0.5, "documentation_weight": 0.25}}
    )
    assert kind_weights(config) == {"bug": 2.0, "general": 2.0, "feature": 0.5, "documentation": 0.25}


def test_sums_are_those_of_the_data(documented):
    sft, rl = documented.stages
    assert (sft.batch_size, sft.steps) == (16, 9)  # 3 passes over 40 rows
    assert (rl.groups_per_step, rl.group_size, rl.steps) == (2, 8, 18)  # 3 passes over 12 problems
    assert (rl.evaluation.tasks, rl.environments[0].heldout) == (4, 4)
    assert rl.preset == "ppo"


FLAGS = {
    "--epochs": (["4"], "0.steps", 8),
    "--batch-size": (["2"], "0.batch_size", 32),
    "--learning-rate": (["1e-4"], "1.optimizer.learning_rate", 1e-4),
    "--checkpoint-interval": (["3"], "1.checkpoints.every", 9),
    "--early-stopping": ([], "0.evaluation.patience", 7),
    "--early-stop-patience": (["7"], "1.evaluation.patience", 7),
    "--distributed": ([], "1.engine.type", "ray"),
}
"""What is given, and where in the stages of a recipe what becomes of it."""
ELSEWHERE_FLAGS = {
    "--config": "named settings: below",
    "--benchmark-id": "data: below",
    "--train-path": "data: below",
    "--val-path": "data: below",
    "--output-dir": "where all is written",
    "--no-mlflow": "who is told",
    "--experiment-name": "who is told",
    "--verbose": "what is printed",
    "--sample-config": "ends at once",
    "--run-name": "what the run is called: below",
    "--tune-hyperparameters": "a study of the recipe: below",
    "--repository": "data",
    "--benchmarks": "data",
    "--help": "ends at once",
    "-h": "ends at once",
}
REFUSED = {
    "--kubernetes": ([], "this trains here"),
    "--n-trials": (["3"], "not asked for: add it"),
}


def with_flags(folder: Path, *words: str) -> Pipeline:
    flags = flags_of(words)
    config = settings(flags, DEFAULTS)
    given = {
        "name": flags.run_name,
        "distributed": flags.distributed,
        "checkpoint_epochs": flags.checkpoint_interval,
        "overrides": flags.overrides,
    }
    return resolved(folder, config, **given)


def test_every_flag_changes_the_recipe(tmp_path):
    before = with_flags(tmp_path)
    given = [word for flag, (values, _, _) in FLAGS.items() for word in (flag, *values)]
    after = with_flags(tmp_path, *given, "--run-name", "mine")
    assert {flag: at(after, place) for flag, (_, place, _) in FLAGS.items()} == {
        flag: becomes for flag, (_, _, becomes) in FLAGS.items()
    }
    assert [flag for flag, (_, place, becomes) in FLAGS.items() if at(before, place) == becomes] == []
    assert (before.name, after.name) == ("issues", "mine")


def test_ranks_are_as_many_as_the_settings_say_and_what_else_is_said_of_them_is_refused(tmp_path):
    for distributed, count in (({"num_workers": 2}, 2), ({"num_workers": 2, "gpus_per_worker": 0}, 2)):
        ranks = resolved(tmp_path, RLLMConfig.model_validate({"distributed": distributed}), distributed=True)
        assert [stage.engine.workers for stage in ranks.stages] == [count, count]
    preset = resolved(tmp_path, get_deepcoder_config(), distributed=True)
    assert [(stage.engine.type, stage.engine.workers) for stage in preset.stages] == [("ray", 32), ("ray", 32)]
    for name, value in (("use_ray", False), ("cpus_per_worker", 1), ("memory_per_worker_gb", 8)):
        config = RLLMConfig.model_validate({"distributed": {name: value}})
        with pytest.raises(ConfigError, match=rf"distributed\.{name} is {value}, and .*: leave it out"):
            resolved(tmp_path, config, distributed=True)


def test_patience_is_of_early_stopping(tmp_path):
    with pytest.raises(ConfigError, match="add it"):
        with_flags(tmp_path, "--early-stop-patience", "7")


@pytest.mark.parametrize(("flag", "values", "says"), [(flag, *row) for flag, row in REFUSED.items()])
def test_what_cannot_be_done_is_refused_with_the_reason(tmp_path, flag, values, says):
    with pytest.raises(ConfigError, match=says):
        with_flags(tmp_path, flag, *values)


def test_the_study_is_of_settings_that_the_recipe_has(tmp_path, documented):
    path = write_study(tmp_path, documented, learned(tmp_path), trials=3)
    study = load_as(Study, path)
    assert (study.trials, study.metric, study.direction) == (3, "heldout/reward", "maximize")
    assert list(study.space) == ["stages.1.optimizer.learning_rate", "stages.1.groups_per_step", "stages.1.steps"]
    rate, batch, steps = study.space.values()
    assert (rate.low, rate.high, batch.choices) == (1e-6, 1e-4, (2, 4, 8, 16))
    assert steps.choices == (6, 12, 18, 24, 30)
    shown = documented.model_copy(update={"stages": documented.stages[:1]})
    study = load_as(Study, write_study(tmp_path, shown, learned(tmp_path), trials=3))
    assert (study.metric, study.direction) == ("heldout/loss", "minimize")


def test_every_documented_flag_is_in_one_of_the_tables_and_in_both_commands():
    ours = {option for action in parser()._actions for option in action.option_strings}
    assert ours == {*FLAGS, *ELSEWHERE_FLAGS, *REFUSED}
    [command] = [each for each in issues.registered_commands if each.name == "train"]
    parameters = {f"--{name.replace('_', '-')}" for name in command.callback.__annotations__}
    assert ours - {"-h", "--help", "--no-mlflow"} <= parameters
    assert "--mlflow" in parameters


def test_flags_count_before_a_file_and_a_file_before_the_defaults(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"training": {"num_train_epochs": 7, "learning_rate": 1e-3}}))
    found = settings(Flags(config=path, learning_rate=2e-3), DEFAULTS).training
    assert (found.num_train_epochs, found.learning_rate, found.per_device_train_batch_size) == (7, 2e-3, 4)
    assert settings(Flags(mlflow=False), DEFAULTS).training.report_to == ()
    assert settings(Flags(), DEFAULTS).training.report_to == ("mlflow",)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "--train-path is missing"),
        ({"train_path": Path("a")}, "--val-path is missing"),
        ({"benchmark_id": "x", "train_path": Path("a")}, "give the one or both"),
    ],
)
async def test_data_are_named_once(given, says):
    with pytest.raises(ConfigError, match=says):
        await files(Flags(**given), RLLMConfig())


# --- over a recipe --------------------------------------------------------------------------------


def test_over_a_recipe_only_what_was_given_counts(tmp_path):
    shipped_as = load(shipped("issues.yaml"))
    base = recipe_base(shipped("issues.yaml"), RLLMConfig())
    found = resolved(tmp_path, RLLMConfig.model_validate({"training": {"learning_rate": 1e-4}}), base=base)
    assert [stage.optimizer.learning_rate for stage in found.stages] == [1e-4, 1e-4]
    assert [stage.steps for stage in found.stages] == [stage.steps for stage in shipped_as.stages]
    assert found.stages[0].policy == shipped_as.stages[0].policy
    assert found.stages[1].environments[0].path == str(tmp_path.resolve() / "p")


def test_overrides_count_last_and_mistakes_are_told_by_their_place(tmp_path):
    config = RLLMConfig()
    assert resolved(tmp_path, config, overrides=["stages.0.steps=5"]).stages[0].steps == 5
    with pytest.raises(ConfigError, match=r"argument stages\.0\.stesp=5: unknown key"):
        resolved(tmp_path, config, overrides=["stages.0.stesp=5"])
    with pytest.raises(ConfigError, match="single run of type"):
        recipe_base(shipped("sft-jsonl.yaml"), config)


def test_the_preset_for_code_is_shipped_as_a_recipe_that_can_be_planned(tmp_path):
    found = load(shipped("deepcoder.yaml"))
    config = get_deepcoder_config()
    there = Problems(Path("problems.jsonl"), Path("heldout.jsonl"), Path("repository"), count=200, heldout=20)
    rows = Material(Path("shown.jsonl"), Path("shown_heldout.jsonl"), 200, 20, False, False, there, {})
    told = MLIntegration(config).trackers()
    path, made = write_recipe(tmp_path, documented_base(config), config, rows, half_precision=True, trackers=told)
    for stage, ours in zip(made.stages, found.stages, strict=True):
        assert stage.model_copy(update=_places(stage, ours)) == ours
    assert load(path) == made


def _places(stage, ours) -> dict[str, object]:
    """What says where files are, as it is in ours."""
    if not isinstance(ours, RLRun):
        return {"data": ours.data}
    [own], [other] = stage.environments, ours.environments
    files = {name: getattr(other, name) for name in ("path", "heldout_path", "repository", "system")}
    return {"environments": (own.model_copy(update=files),)}


# --- what is learned from -------------------------------------------------------------------------


def test_problems_are_shown_solved_and_then_learned_on(corpus, tmp_path, settings):
    trainer = RLLMTrainer(settings, repository=corpus.repository)
    files = [corpus.file(tmp_path / f"{name}.jsonl", *at) for name, at in (("t", (0, 1)), ("v", (2,)))]
    path, pipeline, found = trainer.recipe(*files)
    assert (found.count, found.heldout, found.problems.count, found.problems.heldout) == (2, 1, 2, 1)
    talk = conversations(str(found.path))[0]
    assert talk[0].content == system_of(settings) == pipeline.stages[1].environments[0].system
    assert "<edit path=" in talk[-1].content
    assert load(path) == pipeline
    with pytest.raises(ConfigError, match="give its folder"):
        RLLMTrainer(settings).recipe(*files)
    with pytest.raises(DataError, match="told of by others"):
        trainer.recipe(files[0], files[0])


def test_lines_without_problems_are_only_shown_by_what_they_came_to(tmp_path, settings):
    files = []
    for name, at in (("train", 1), ("val", 5)):
        made = [IssueTrajectory.model_validate(trajectory(at + more)) for more in (0, 1)]
        spoilt = made[1].model_copy(update={"outcome": made[1].outcome.model_copy(update={"reward": 0.25})})
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text(examples_written(converted([made[0], spoilt]).examples))
    _, pipeline, found = RLLMTrainer(settings).recipe(*files)
    assert found.problems is None
    [stage] = pipeline.stages
    assert (stage.type, stage.weighting.kind, stage.data.type) == ("sft", "reward", "episodes")
    assert {each.reward for each in episodes(stage.data.path)} == {1.0, 0.25}


@pytest.mark.parametrize(
    ("row", "says"),
    [({"instance": 1}, r"did you mean instance_id\?"), (None, "is empty")],
)
def test_another_file_is_refused(tmp_path, row, says):
    path = tmp_path / "rows.jsonl"
    path.write_text("" if row is None else json.dumps(row) + "\n")
    with pytest.raises(DataError, match=says):
        material(path, path, tmp_path / "data", system="", weights=None, repository=None, numbered=False)
