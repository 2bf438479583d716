"""No dead knobs: every setting has a consumer, the consumer really reads it, and the sums are right."""

import ast
import dataclasses
import inspect
from pathlib import Path

import pytest

import fettle
from fettle import config as c
from fettle.config import Arithmetic, Frozen, RLRun, SFTRun, issues, router, routing, study
from fettle.config.load import load
from fettle.engine import Capabilities
from fettle.errors import ConfigError, ModelError
from fettle.losses import LOSSES
from fettle.losses.evaluation import TERMS
from fettle.training.memory import ACTIVATIONS, memory_estimate
from fettle.training.plan import CONSUMERS, plan, plans

SOURCE = Path(fettle.__file__).parent
CONFIGS = Path(__file__).parents[2] / "configs"
HERE = Capabilities("local", "cpu", tuple(LOSSES), ("float32", "bfloat16"), threads=2, memory_bytes=24 * 2**30)


def rl(**settings) -> RLRun:
    return RLRun(policy={"model": c.TinyModel()}, environments=[Arithmetic()], **settings)


def settings_classes() -> list[type[Frozen]]:
    found = [value for value in vars(c).values() if inspect.isclass(value) and issubclass(value, Frozen)]
    of_others = [kind for kind in found if kind.__module__ in (router.__name__, routing.__name__)]  # see tests/router
    of_others += [kind for kind in found if kind.__module__ == study.__name__]  # see tests/tuning
    of_others += [issues.Corpus, issues.Mining, issues.Split]  # see tests/issues
    of_a_service = (c.ServiceConfig, c.ServedModel, c.JournalSettings, c.Scheduling, c.Prices, c.TokenPrices)
    never_in_a_recipe = (
        Frozen,
        c.TorchEngine,
        c.SamplingParams,
        c.Reading,
        c.PolicyLoss,
        c.EnvironmentServerConfig,
        *of_a_service,
    )
    return [kind for kind in found if kind not in never_in_a_recipe and kind not in of_others]


def read_in(module: str) -> set[str]:
    """Names that a module reads as an attribute, or spells out."""
    path = SOURCE / Path(*module.split("."))
    tree = ast.parse(
        (path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py").read_text()
    )
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return attributes | strings


@pytest.mark.parametrize("kind", settings_classes(), ids=lambda kind: kind.__name__)
def test_every_setting_has_a_consumer_that_reads_it(kind):
    loss = LOSSES.get(str(kind.model_fields["type"].default)) if "type" in kind.model_fields else None
    for name in kind.model_fields:
        if name == "type":
            continue
        if loss is not None and name in (*TERMS, *inspect.signature(loss.function).parameters):
            continue
        consumer = CONSUMERS[kind][name]
        assert name in read_in(consumer), f"{kind.__name__}.{name} is said to be read by {consumer}, which does not"


def test_no_consumer_is_named_for_a_setting_that_is_not_there():
    for kind, consumers in CONSUMERS.items():
        variants = (c.Constant, c.Linear, c.Cosine)
        assert set(consumers) <= set(kind.model_fields) or kind in variants


@pytest.mark.parametrize("recipe", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_planned_without_its_model_or_its_data(recipe):
    for _, planned in plans(load(recipe), lambda engine, _: HERE):
        assert planned.settings
        assert all(setting.consumer.startswith("fettle.") for setting in planned.settings)
        assert (planned.memory_bytes > 0) == (recipe.stem != "arithmetic-service")  # a service's memory is not here


def test_a_setting_nobody_consumes_is_an_error(monkeypatch):
    monkeypatch.setitem(CONSUMERS_AS_DICT, c.Checkpoints, {"every": "training.session"})
    monkeypatch.setattr("fettle.training.plan.CONSUMERS", CONSUMERS_AS_DICT)
    with pytest.raises(ConfigError, match=r"nobody consumes the setting checkpoints\.keep"):
        plan(rl(), HERE)


CONSUMERS_AS_DICT = dict(CONSUMERS)


def test_the_batch_arithmetic():
    planned = dict(
        plan(rl(steps=10, groups_per_step=6, group_size=4, minibatches=3, sampling={"max_tokens": 50}), HERE).batch
    )
    assert planned["episodes a step"] == "6 groups x 4 = 24"
    assert planned["sampled tokens a step"] == "at most 24 x 50 = 1200"
    assert planned["optimizer steps"] == "10 steps x 3 = 30, each on 2 groups"
    assert planned["episodes in all"] == "10 x 24 = 240"


def test_weights_gradients_and_moments_of_full_training_are_four_floats_each():
    sizes = dict(plan(rl(), HERE).memory)
    assert sizes["weights"] == sizes["gradients"] == sizes["optimizer"] / 2


def test_a_critic_of_its_own_needs_as_much_as_the_policy_and_an_undone_step_what_it_goes_back_to():
    def sizes(**settings) -> dict[str, int]:
        return dict(plan(rl(preset="conservative_ppo", **settings), HERE).memory)

    head, model = sizes(), sizes(critic={"place": "model"})
    assert "a critic of its own" not in head
    assert model["a critic of its own"] == model["weights"] + model["gradients"] + model["optimizer"]
    assert model["weights and moments to go back to"] == model["weights"] + model["optimizer"]


def test_a_teachers_weights_are_held_beside_the_policy():
    sizes = dict(plan(rl(preset="distill", teacher={"model": "a-teacher"}), HERE).memory)
    assert sizes["the teacher"] == sizes["weights"]
    assert "the teacher" not in dict(plan(rl(), HERE).memory)


def test_a_reward_models_weights_are_held_beside_the_policy():
    sizes = dict(plan(rl(reward_model={"model": "stage:judge-7b"}), HERE).memory)
    assert sizes["the reward model"] == sizes["weights"], "what a stage left has the policy's shape, whatever its name"
    assert "the reward model" not in dict(plan(rl(), HERE).memory)


def test_a_later_stage_shows_the_model_it_was_given_and_has_the_shape_of_the_first():
    (_, first), _, (_, ppo) = plans(load(CONFIGS / "rlhf-three-stage.yaml"), lambda engine, _: HERE)
    assert [setting.value for setting in ppo.settings if setting.key == "policy.model"] == ["stage:warm-up"]
    assert not any(setting.key.startswith("policy.model.") for setting in ppo.settings)
    assert dict(ppo.memory)["weights"] == dict(first.memory)["weights"]


def test_the_estimate_of_a_tiny_model_is_near_what_it_really_has(tmp_path):
    from fettle.engine.local.tiny import make_tiny_model  # noqa: PLC0415
    from fettle.training.memory import model_shape  # noqa: PLC0415

    made = make_tiny_model(
        c.TinyModel(vocabulary=512), tmp_path / "m", texts=[f"word{chr(97 + i)}" * 3 for i in range(26)]
    )
    guessed, measured = model_shape(c.TinyModel(vocabulary=512)), model_shape(made)
    assert measured.known_from == "its files"
    assert guessed.parameters == pytest.approx(measured.parameters, rel=0.1)
    assert (measured.layers, measured.hidden) == (3, 192)


def test_settings_that_cannot_act_are_pointed_out():
    assert any("never clips" in note for note in plan(rl(preset="dapo"), HERE).notes)
    assert not any("never clips" in note for note in plan(rl(preset="dapo", minibatches=2), HERE).notes)
    warm = SFTRun(policy={"model": c.TinyModel()}, data=c.WorkedSums(), steps=5, schedule={"warmup_steps": 5})
    assert any("never reaches its peak" in note for note in plan(warm, HERE).notes)
    beside = c.LocalEngine(sampling_threads=1)
    assert any("nothing without staleness" in note for note in plan(rl(engine=beside), HERE).notes)
    assert not any("nothing without staleness" in note for note in plan(rl(engine=beside, max_staleness=1), HERE).notes)


def test_too_little_memory_names_the_settings_to_lower():
    small = Capabilities("local", "cpu", tuple(LOSSES), ("float32",), threads=1, memory_bytes=10 * 2**20)
    few = {"sample_tokens": 1024}
    for settings, mend in (
        ({"engine": few}, "lower engine.train_tokens below 2304, or train with policy.lora"),
        ({"engine": few | {"train_tokens": 1024}}, "lower engine.train_tokens, or train with policy.lora"),
        ({"engine": few, "policy": {"model": c.TinyModel(), "lora": {}}}, "lower engine.train_tokens below 2304"),
        ({"engine": {"train_tokens": 64, "sample_tokens": 65536}}, "lower engine.sample_tokens, or train with"),
    ):
        run = RLRun.model_validate({"policy": {"model": c.TinyModel()}, "environments": [Arithmetic()], **settings})
        [note] = [note for note in plan(run, small).notes if "GiB are needed" in note]
        assert mend in note
        assert ("policy.lora" in note) == (run.policy.lora is None)


def test_a_cpus_micro_batches_are_planned_as_far_as_they_are_filled():
    def activations(device: str, **settings) -> int:
        return dict(memory_estimate(rl(**settings), device=device))[ACTIVATIONS]

    assert activations("cuda") == activations("cuda", sampling={"max_tokens": 1024})
    assert activations("cuda") == 8 * activations("cpu", sampling={"max_tokens": 16}), "2 048 tokens of 16 384"
    assert activations("cpu", sampling={"max_tokens": 512}) > activations("cpu", sampling={"max_tokens": 16})


def test_copies_for_a_sampler_beside_training_and_gradients_of_a_second_loss_are_counted():
    copied, rehearsed = "weights copied for the sampler", "gradients of what is rehearsed"
    plain = dict(plan(rl(), HERE).memory)
    assert not {copied, rehearsed} & plain.keys()
    beside = dict(plan(rl(engine={"sampling_threads": 1}, max_staleness=1), HERE).memory)
    assert beside[copied] == 2 * plain["weights"]
    second = dict(plan(rl(rehearsal={"data": {"type": "worked_sums"}}), HERE).memory)
    assert second[rehearsed] == plain["gradients"]


def test_a_reply_that_cannot_fit_the_context_is_pointed_out(tmp_path):
    (tmp_path / "config.json").write_text('{"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, '
                                          '"max_position_embeddings": 100}')  # fmt: skip
    for model in (c.TinyModel(context=100), str(tmp_path)):
        for max_tokens, told in ((99, False), (100, True)):
            run = RLRun(policy={"model": model}, environments=[Arithmetic()], sampling={"max_tokens": max_tokens})
            assert any("the model's context is 100" in note for note in plan(run, HERE).notes) == told


def test_a_data_file_that_is_not_there_is_pointed_out(tmp_path):
    path = tmp_path / "questions.jsonl"
    run = RLRun(policy={"model": c.TinyModel()}, environments=[c.JSONL(path=str(path))])
    assert f"environments.0.path is {path}, and there is no such file here" in plan(run, HERE).notes
    path.touch()
    assert not any("no such file" in note for note in plan(run, HERE).notes)


def test_what_the_engine_cannot_do_is_refused():
    weak = Capabilities("toy", "cpu", ("causal_lm",), ("float32",), threads=1, memory_bytes=2**34)
    with pytest.raises(ConfigError, match=r"loss\.type is ppo, and the toy engine offers causal_lm"):
        plan(rl(), weak)
    with pytest.raises(ConfigError, match=r"policy\.precision is bfloat16, and the toy engine offers float32"):
        plan(SFTRun(policy={"model": "x", "precision": "bfloat16"}, data=c.WorkedSums()), weak)


def test_the_reference_of_a_kl_penalty_is_a_second_model_unless_adapters_are_trained():
    def sizes(**settings) -> dict[str, int]:
        return dict(plan(rl(**settings), HERE).memory)

    assert sizes()["the KL penalty's reference"] == sizes()["weights"]
    assert "the KL penalty's reference" not in sizes(loss={"kl": None})
    adapted = RLRun(policy={"model": c.TinyModel(), "lora": {}}, environments=[Arithmetic()])
    assert "the KL penalty's reference" not in dict(plan(adapted, HERE).memory)


@pytest.mark.parametrize(
    ("settings", "held"),
    [
        ({}, True),
        ({"loss": {"type": "simpo"}}, False),
        ({"policy": {"model": c.TinyModel(), "lora": {}}}, False),
        ({"policy": {"model": c.TinyModel(), "lora": {}}, "reference": "another"}, True),
    ],
)
def test_what_preferences_are_compared_with_is_a_second_model_unless_adapters_are_trained(settings, held):
    run = c.PreferenceRun.model_validate({"policy": {"model": c.TinyModel()}, "data": c.WorkedPairs(), **settings})
    assert ("the reference" in dict(plan(run, HERE).memory)) == held


def test_each_stage_is_planned_on_its_own_engine():
    gpu = Capabilities("local", "cuda", tuple(LOSSES), ("float32",), threads=1, memory_bytes=0)
    recipe = load(CONFIGS / "arithmetic-grpo.yaml", ["stages.1.engine.device=cuda"])
    notes = [planned.notes for _, planned in plans(recipe, lambda engine, _: gpu if engine.device == "cuda" else HERE)]
    assert not any("no cuda device" in note for note in notes[0])
    assert any("no cuda device" in note for note in notes[1])


def test_a_model_folder_that_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"cannot be planned for .*: look at its config\.json"):
        plan(RLRun(policy={"model": str(tmp_path)}, environments=[Arithmetic()]), HERE)


def test_a_plan_says_how_the_model_is_run():
    paths = {"training": "packed: so and so", "sampling": "lean: thus"}
    here = dataclasses.replace(HERE, paths=paths)
    assert paths.items() <= dict(plan(rl(), here).batch).items()
    supervised = dict(plan(SFTRun(policy={"model": c.TinyModel()}, data=c.WorkedSums(tasks=Arithmetic())), here).batch)
    assert supervised["training"] == "packed: so and so"
    assert "sampling" not in supervised


def test_each_stage_is_asked_about_with_its_own_policy_in_the_shape_of_the_first():
    recipe = load(CONFIGS / "rlhf-three-stage.yaml", ["stages.2.policy.lora={}", "stages.2.policy.quantization=int8"])
    asked = []

    def noted(engine, policy):
        asked.append(policy)
        return HERE

    plans(recipe, noted)
    assert [policy.quantization for policy in asked] == [None, None, "int8"]
    assert [policy.model for policy in asked] == [recipe.stages[0].policy.model] * 3
