from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.config import (
    CISPO,
    DRO,
    GSPO,
    JSONL,
    KL,
    PPO,
    PRESETS,
    AdamW,
    Arithmetic,
    Constant,
    Conversations,
    Cosine,
    DynamicSampling,
    Evaluation,
    FixedLength,
    ImportanceSampling,
    Linear,
    LoRA,
    Overlong,
    Pipeline,
    PolicySpec,
    ReasoningGym,
    RLRun,
    Sampling,
    SequenceMean,
    SequenceSum,
    SFTRun,
    TinyModel,
    TokenMean,
    WorkedSums,
    dump,
    load,
    load_as,
)

RECIPES = sorted((Path(__file__).parent.parent.parent / "configs").glob("*.yaml"))


KINDS = "sft, reward_model, preference, rl, pipeline"


def rl(**given):
    return RLRun(**{"policy": PolicySpec(model="m"), "environments": (Arithmetic(),), **given})


# --- one run, three ways to say it ------------------------------------------------------------------


RUN = RLRun(
    name="say",
    policy=PolicySpec(model="m", lora=LoRA(rank=4)),
    environments=(Arithmetic(digits=3), ReasoningGym(task="gcd", settings={"max_value": 50}, weight=2)),
    preset="dapo",
    loss=PPO(clip_low=0.1, clip_high=0.28),
    optimizer=AdamW(learning_rate=1e-5, clip_norm=None),
    schedule=Cosine(warmup_steps=5),
    sampling=Sampling(stop=("no",)),
)
TEXT = """
type: rl
name: say
policy: {model: m, lora: {rank: 4}}
environments:
- {type: arithmetic, digits: 3}
- {type: reasoning_gym, task: gcd, settings: {max_value: 50}, weight: 2}
preset: dapo
loss: {clip_low: 0.1}
optimizer: {learning_rate: 1e-5, clip_norm: ~}
schedule: {type: cosine, warmup_steps: 5}
sampling: {stop: [no]}
"""
ARGUMENTS = [
    "type=rl",
    "name=say",
    "policy.model=m",
    "policy.lora.rank=4",
    "environments=[{type: arithmetic}, {type: reasoning_gym, task: gcd}]",
    "environments.0.digits=3",
    "environments.1.settings.max_value=50",
    "environments.1.weight=2",
    "preset=dapo",
    "loss.clip_low=0.1",
    "optimizer.learning_rate=1e-5",
    "optimizer.clip_norm=",
    "schedule.warmup_steps=5",
    "schedule.type=cosine",
    "sampling.stop=[no]",
]


def test_a_file_says_what_python_says(recipe):
    from_python = RUN.model_copy(update={"dynamic_sampling": DynamicSampling(max_rounds=10), "overlong": Overlong()})
    assert load(recipe(TEXT)) == from_python


def test_arguments_say_what_a_file_says(recipe):
    assert load(None, ARGUMENTS) == load(recipe(TEXT))


def test_the_same_mapping_in_python_gives_the_same_run(recipe):
    assert RLRun(policy={"model": "m"}, environments=[{"type": "arithmetic"}], schedule={"warmup_steps": 5}) == load(
        recipe("type: rl\npolicy: {model: m}\nenvironments: [{type: arithmetic}]\nschedule: {warmup_steps: 5}")
    )


def test_one_class_of_settings_is_loaded_by_itself(recipe):
    assert load_as(AdamW, recipe("learning_rate: 1e-3"), ["beta1=0.5"]) == AdamW(learning_rate=1e-3, beta1=0.5)


# --- overrides --------------------------------------------------------------------------------------


def test_an_argument_outranks_the_file_and_leaves_the_rest(small):
    run = load(small("steps: 7", "optimizer: {learning_rate: 1e-3, beta1: 0.5}"), ["optimizer.learning_rate=1e-4"])
    assert run == rl(steps=7, optimizer=AdamW(learning_rate=1e-4, beta1=0.5))


def test_of_two_arguments_the_last_counts(small):
    assert load(small(), ["steps=3", "policy.lora.rank=4", "steps=5", "policy.lora=null"]) == rl(steps=5)


@pytest.mark.parametrize("text", ["type: linear\n  final: 0.5", "warmup_steps: 1"])
def test_arguments_for_a_new_type_may_come_in_any_order(small, text):
    path = small(f"schedule:\n  {text}")
    expected = rl(schedule=Cosine(warmup_steps=9))
    assert load(path, ["schedule.type=cosine", "schedule.warmup_steps=9"]) == expected
    assert load(path, ["schedule.warmup_steps=9", "schedule.type=cosine"]) == expected


@pytest.mark.parametrize(
    ("argument", "field", "value"),
    [
        ("schedule.warmup_steps=5", "schedule", Constant(warmup_steps=5)),
        ("loss.clip_high=0.3", "loss", PPO(clip_high=0.3, kl=KL(coefficient=0.04, estimator="k3"))),
        ("loss.kl=null", "loss", PPO()),
        ("reduction.type=sequence_sum", "reduction", SequenceSum()),
        ("engine.threads=2", "engine", rl().engine.model_copy(update={"threads": 2})),
    ],
)
def test_a_variant_may_be_changed_in_part_without_its_type(small, argument, field, value):
    assert getattr(load(small(), [argument]), field) == value


def test_a_part_of_the_variant_that_a_preset_chose(small):
    assert load(small("preset: gspo"), ["loss.clip_low=1e-3"]).loss == GSPO(clip_low=1e-3)


def test_items_of_lists_within_lists_are_named_by_index(recipe):
    path = recipe(
        "type: pipeline\nstages:\n- {type: sft, policy: {model: m}, data: {type: worked_sums}}\n"
        "- {type: rl, policy: {model: previous}, environments: [{type: arithmetic}, {type: arithmetic}]}\n"
    )
    run = load(path, ["stages.1.environments.1.digits=4", "stages.1.environments.0.weight=3"])
    assert run.stages[1].environments == (Arithmetic(weight=3), Arithmetic(digits=4))


@pytest.mark.parametrize("key", ["1", "-1", "first"])
def test_an_item_that_is_not_there(small, problems, key):
    assert problems(small(), f"environments.{key}.weight=2") == [
        f"argument environments.{key}.weight=2: 'environments' is a list with no item '{key}': "
        "its items are 0 to 0, and others need the list given whole"
    ]


def test_an_item_of_a_list_that_is_not_there(small, problems):
    assert problems(small(), "sampling.stop.0=x") == [
        "argument sampling.stop.0=x: "
        "'sampling.stop' takes a list, and there is none here whose items could be changed: give it whole"
    ]


def test_an_item_of_a_list_that_an_argument_gave(small):
    run = load(small(), ["environments=[{type: arithmetic}, {type: jsonl, path: a}]", "environments.1.weight=2"])
    assert run.environments == (Arithmetic(), JSONL(path="a", weight=2))


def test_what_an_argument_gave_is_blamed_on_the_argument(small, problems):
    path = small("zzz: {}")
    argument = "environments=[{type: arithmetic, digits: 0, digits: 0}]"
    assert problems(path, argument, "zzz.a=1") == [
        f"argument {argument}: 'environments.0.digits' is given twice: keep one",
        f"argument {argument}: 'environments.0.digits' should be greater than or equal to 1 (got 0)",
        "recipe.yaml:4: unknown key 'zzz'; known here: " + ", ".join(RLRun.model_fields),
    ]


@pytest.mark.parametrize("argument", ["steps", "=3", "a..b=3", "a.=3", "--steps"])
def test_an_argument_that_is_no_override(small, problems, argument):
    assert problems(small(), argument) == [
        f"argument {argument}: an override is written key=value, such as optimizer.learning_rate=1e-5"
    ]


def test_an_argument_whose_value_is_not_yaml(small, problems):
    [problem] = problems(small(), "name=[")
    assert problem.startswith("argument name=[: this is not YAML: ")


def test_a_long_argument_is_cut_short_where_it_is_named(small, problems):
    [problem] = problems(small(), f"zzz=[{'x, ' * 100}]")
    assert problem.startswith("argument zzz=[x, x, ")
    assert "...: unknown key 'zzz'; known here: type, name" in problem


# --- files that are no recipes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "recipe.yaml:1: a recipe is a mapping of settings, such as type: rl (got nothing)"),
        ("# only words\n", "recipe.yaml:1: a recipe is a mapping of settings, such as type: rl (got nothing)"),
        ("\n- type: rl\n", "recipe.yaml:2: a recipe is a mapping of settings, such as type: rl (got [{'type': 'rl'}])"),
        ("rl", "recipe.yaml:1: a recipe is a mapping of settings, such as type: rl (got 'rl')"),
        ("type: rl\nname: a: b\n", "recipe.yaml:2: this is not YAML: mapping values are not allowed here"),
        ("{}", f"recipe.yaml: 'type' is missing: give one of {KINDS}"),
        (
            "name: a\ntype: rll\n",
            f"recipe.yaml:2: 'type' is 'rll', which is none of {KINDS}; did you mean rl?",
        ),
    ],
)
def test_a_file_that_is_no_recipe(recipe, problems, text, problem):
    assert problems(recipe(text)) == [problem]


def test_a_file_that_cannot_be_read(tmp_path, problems):
    assert problems(tmp_path / "none.yaml") == [f"{tmp_path}/none.yaml: cannot be read: No such file or directory"]
    assert problems(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]


def test_a_file_that_is_not_text(tmp_path, problems):
    path = tmp_path / "latin.yaml"
    path.write_bytes("type: rl\nname: café\n".encode("latin-1"))
    assert problems(path) == [f"{path}:2: is not UTF-8 text: save it as such"]


def test_no_file_and_no_type(problems):
    assert problems(None) == [f"the arguments: 'type' is missing: give one of {KINDS}"]
    assert problems(None, "type=sfr") == [
        f"argument type=sfr: 'type' is 'sfr', which is none of {KINDS}; did you mean sft?"
    ]


# --- recipes that are shipped -----------------------------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_loads_and_is_replayed_by_its_dump(path, recipe):
    run = load(path)
    assert load(recipe(dump(run))) == run


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_says_what_it_teaches(path):
    assert path.read_text(encoding="utf-8").startswith("# Teaches: ")
    assert path.stem.startswith(load(path).name)


def test_the_recipes_that_are_owed_are_there():
    assert {path.stem for path in RECIPES} >= {
        "arithmetic-grpo",
        "arithmetic-ppo",
        "demo",
        "qwen3-gsm8k-grpo",
        "reasoning-gym-grpo",
        "sft-jsonl",
    }


# --- the resolved recipe ----------------------------------------------------------------------------


def test_a_dump_is_plain_yaml_in_the_order_of_the_fields():
    text = dump(Evaluation(target=0.5))
    assert text == "every: 20\ntasks: 200\nhalf: null\nsamples: 1\ntemperature: 1.0\npatience: null\ntarget: 0.5\n"
    assert dump(Sampling(stop=("no", "1e5"))).splitlines()[-3:] == ["stop:", "- 'no'", "- '1e5'"]


def test_what_a_preset_filled_in_and_what_was_taken_out_both_stay(recipe):
    run = rl(preset="dapo", dynamic_sampling=None, loss={"clip_low": 0.1})
    again = load(recipe(dump(run)))
    assert again == run
    assert (again.dynamic_sampling, again.overlong, again.loss.clip_high) == (None, Overlong(), 0.28)


FRACTIONS = st.floats(min_value=1e-9, max_value=0.999)
NAMES = st.text(min_size=1)
FOLDERS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", fullmatch=True)
PENALTIES = st.none() | st.builds(KL, coefficient=FRACTIONS)
LOSSES = st.one_of(
    st.builds(ImportanceSampling, kl=PENALTIES),
    st.builds(PPO, clip_low=FRACTIONS, clip_high=FRACTIONS, kl=PENALTIES),
    st.builds(CISPO, ratio_high=FRACTIONS, kl=PENALTIES),
    st.builds(GSPO, clip_low=FRACTIONS, kl=PENALTIES),
    st.builds(DRO, beta=FRACTIONS, kl=PENALTIES),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
ENVIRONMENTS = st.one_of(
    st.builds(Arithmetic, system=st.none() | st.text(), weight=FRACTIONS),
    st.builds(ReasoningGym, task=NAMES, settings=st.dictionaries(st.text(), JSON, max_size=3), seed=st.integers()),
    st.builds(JSONL, path=NAMES, reward=NAMES),
)
POLICIES = st.builds(
    PolicySpec,
    model=NAMES.filter(lambda name: name != "previous") | st.just(TinyModel(seed=3)),
    lora=st.none() | st.builds(LoRA, alpha=FRACTIONS, targets=st.lists(NAMES, min_size=1, max_size=3)),
)
SCHEDULES = st.builds(Cosine, final=FRACTIONS) | st.builds(Linear, warmup_steps=st.integers(0, 9)) | st.just(Constant())
RL_RUNS = st.builds(
    RLRun,
    name=FOLDERS,
    policy=POLICIES,
    environments=st.lists(ENVIRONMENTS, min_size=1, max_size=3),
    preset=st.sampled_from(sorted(set(PRESETS) - {"distill", "off_policy"})),  # those need more than they are given
    loss=LOSSES,
    reduction=st.sampled_from([TokenMean(), SequenceMean(), SequenceSum(), FixedLength()]),
    dynamic_sampling=st.none() | st.just(DynamicSampling(max_rounds=2)),
    overlong=st.none() | st.builds(Overlong, buffer=FRACTIONS),
    sampling=st.builds(Sampling, stop=st.lists(st.text(), max_size=3)),
    optimizer=st.builds(AdamW, learning_rate=FRACTIONS, clip_norm=st.none() | FRACTIONS),
    schedule=SCHEDULES,
    evaluation=st.builds(Evaluation, target=st.none() | FRACTIONS),
)
DATA = st.builds(Conversations, path=NAMES) | st.builds(WorkedSums, tasks=st.just(Arithmetic()), slips=FRACTIONS)
SFT_RUNS = st.builds(SFTRun, name=FOLDERS, policy=POLICIES, data=DATA, schedule=SCHEDULES)
PIPELINES = st.builds(lambda first: Pipeline(stages=(first,)), st.one_of(RL_RUNS, SFT_RUNS))


@settings(max_examples=60)
@given(run=st.one_of(RL_RUNS, SFT_RUNS, PIPELINES))
def test_any_run_is_replayed_by_its_dump(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("run") / "config.yaml"
    path.write_text(dump(run), encoding="utf-8")
    assert load(path) == run


@pytest.mark.parametrize("name", ["''", "../escaped", "a/b", ".hidden", "two words"])
def test_a_name_that_cannot_be_a_folders_is_refused(small, problems, name):
    [problem] = problems(small(), f"name={name}")
    assert "a folder is named for it: use letters, digits, dots, dashes and underscores" in problem


def test_numbers_must_be_finite(small, problems):
    [problem] = problems(small(), "optimizer.learning_rate=.inf")
    assert "finite number" in problem


def test_staleness_that_no_batch_could_have_is_refused(small, problems):
    [problem] = problems(small(), "minibatches=2", "max_staleness=1")
    assert "max_staleness is 1, and a batch makes 2 policy versions: use a multiple of minibatches" in problem
