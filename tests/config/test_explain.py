"""Every wrong recipe gets a sentence that names the place, the key and the mend."""

import pytest

PIPELINE = """
type: pipeline
stages:
  - {type: sft, data: {type: worked_sums}, policy: {model: m}}
  - type: rl
    environments: [{type: arithmetic}]
    policy:
      model: previous
"""


OFFLINE = "type sft or reward_model or preference"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("optim: {}", "unknown key 'optim'; did you mean 'optimizer'?"),
        ("evaluation: {taks: 3}", "unknown key 'evaluation.taks'; did you mean 'evaluation.tasks'?"),
        ("learning_rate: 1e-5", "unknown key 'learning_rate'; did you mean 'optimizer.learning_rate'?"),
        ("learning_rat: 1e-5", "unknown key 'learning_rat'; did you mean 'optimizer.learning_rate'?"),
        ("rank: 8", "unknown key 'rank'; did you mean 'policy.lora.rank'?"),
        ("optimizer: {group_size: 8}", "unknown key 'optimizer.group_size'; did you mean 'group_size'?"),
        (
            "temperature: 1",
            "unknown key 'temperature'; did you mean 'sampling.temperature' or 'evaluation.temperature'?",
        ),
        ("loss: {ratio_high: 3.0}", "unknown key 'loss.ratio_high'; it is a setting of type cispo"),
        (
            "data: {}",
            f"unknown key 'data'; it is a setting of {OFFLINE}; did you mean 'rehearsal.data'?",
        ),
        (
            "max_tokens: 9",
            f"unknown key 'max_tokens'; it is a setting of {OFFLINE}; did you mean 'sampling.max_tokens'?",
        ),
        ("checkpoints: {zzz: 1}", "unknown key 'checkpoints.zzz'; known here: every, keep"),
    ],
)
def test_an_unknown_key_is_told_where_it_belongs(small, problems, line, problem):
    assert problems(small(line)) == [f"recipe.yaml:4: {problem}"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "preset: gropo",
            "'preset' is 'gropo', which is none of grpo, dr_grpo, dapo, gspo, cispo, rloo, reinforce_pp, "
            "ppo, conservative_ppo, off_policy, distill; "
            "did you mean grpo?",
        ),
        (
            "loss: {type: pop}",
            "'loss.type' is 'pop', which is none of importance_sampling, ppo, cispo, gspo, dro; did you mean ppo?",
        ),
        ("schedule: {type: step}", "'schedule.type' is 'step', which is none of constant, linear, cosine"),
        ("schedule: cosine", "'schedule' takes a mapping of settings such as {type: cosine} (got 'cosine')"),
        ("optimizer: 3", "'optimizer' takes a mapping of settings (got 3)"),
        ("optimizer: {learning_rate: -1}", "'optimizer.learning_rate' should be greater than or equal to 0 (got -1)"),
        ("optimizer: {learning_rate: '1e-5'}", "'optimizer.learning_rate' should be a valid number (got '1e-5')"),
        ("steps: [1]", "'steps' should be a valid integer (got [1])"),
        ("steps: 1.5", "'steps' should be a valid integer (got 1.5)"),
        ("evaluation: {target: .nan}", "'evaluation.target' should be a finite number (got nan)"),
        ("name: 5", "'name' takes a text (got 5): put it in quotes"),
        ("sampling: {stop: no}", "'sampling.stop' takes a list (got 'no')"),
        ("sampling: {stop: [5]}", "'sampling.stop.0' takes a text (got 5): put it in quotes"),
    ],
)
def test_a_wrong_value_is_shown_beside_what_would_do(small, problems, line, problem):
    assert problems(small(line)) == [f"recipe.yaml:4: {problem}"]


TYPES = (
    "reasoning_gym, arithmetic, jsonl, math, code, issues, tools, debate, dialogue, remote, "
    "verifiers, gymnasium, openenv, plugin"
)


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        (
            "{}",
            f"'environments.0.type' is missing: give one of {TYPES}",
        ),
        (
            "{type: gym}",
            f"'environments.0.type' is 'gym', which is none of {TYPES}",
        ),
        ("{type: jsonl}", "'environments.0.path' is missing, and has no default"),
        (
            "{type: jsonl, path: a, min_terms: 3}",
            "unknown key 'environments.0.min_terms'; it is a setting of type arithmetic",
        ),
        (
            "{type: reasoning_gym, partial_credit: yes}",
            "'environments.0.partial_credit' takes true or false (got 'yes')",
        ),
        ("{type: arithmetic, min_terms: 5}", "'environments.0': max_terms is 2, below min_terms, which is 5"),
    ],
)
def test_an_item_of_a_list_is_named_by_its_index(recipe, problems, environment, problem):
    path = recipe(f"type: rl\npolicy: {{model: m}}\nenvironments:\n- {environment}\n")
    assert problems(path) == [f"recipe.yaml:4: {problem}"]


@pytest.mark.parametrize(
    ("player", "problem"),
    [
        ("{type: pats}", "'players.con.type' is 'pats', which is none of frozen, past, own; did you mean past?"),
        ("{every: 3}", "'players.con.type' is missing: give one of frozen, past, own"),
        ("{type: past, evry: 3}", "unknown key 'players.con.evry'; did you mean 'players.con.every'?"),
        ("{type: past, model: m}", "unknown key 'players.con.model'; it is a setting of type frozen"),
    ],
)
def test_an_item_of_a_mapping_is_named_by_its_key(small, problems, player, problem):
    assert problems(small(f"players: {{con: {player}}}")) == [f"recipe.yaml:4: {problem}"]


def test_a_list_that_may_not_be_empty(recipe, problems):
    path = recipe("type: rl\npolicy: {model: m}\nenvironments: []\n")
    assert problems(path) == ["recipe.yaml:3: 'environments' needs at least 1 item (got 0)"]


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("5", "'policy.model' takes a text (got 5): put it in quotes"),
        ("{hiden: 64}", "unknown key 'policy.model.hiden'; did you mean 'policy.model.hidden'?"),
        ("{hidden: 1}", "'policy.model.hidden' should be greater than or equal to 16 (got 1)"),
        (
            "{hidden: 50, heads: 4}",
            "'policy.model': hidden is 50 and heads 4: the width must divide by twice the heads",
        ),
    ],
)
def test_a_name_or_a_mapping_is_judged_as_what_it_is(small, problems, model, problem):
    assert problems(small(), f"policy.model={model}") == [f"argument policy.model={model}: {problem}"]


def test_a_missing_setting_points_to_the_type_that_needs_it(recipe, problems):
    assert problems(recipe("name: a\ntype: sft\npolicy: {model: m}\n")) == [
        "recipe.yaml:2: 'data' is missing, and has no default"
    ]


def test_a_rule_between_settings_points_to_the_first_it_names(small, problems):
    refused = "group_size is 1, and a group of one has no baseline: use 2 or more"
    assert problems(small("steps: 3", "group_size: 1")) == [f"recipe.yaml:5: {refused}"]
    assert problems(small("steps: 3"), "group_size=1") == [f"argument group_size=1: {refused}"]


def test_a_rule_between_stages_points_to_the_stage(recipe, problems):
    refused = "stages.1.policy.model must be `previous` or `stage:<name>`: stages are chained in order"
    assert problems(recipe(PIPELINE.replace("previous", "m"))) == [f"recipe.yaml:8: {refused}"]


def test_a_setting_of_all_stages_is_told_where_the_first_has_it(recipe, problems):
    [engine] = problems(recipe(PIPELINE), "engine.workers=2")
    assert engine.startswith("argument engine.workers=2: unknown key 'engine'; it is a setting of type sft or ")
    assert engine.endswith("; for the first of the stages write 'stages.0.engine'")


def test_a_stage_guesses_among_its_own_settings(recipe, problems):
    assert problems(
        recipe(PIPELINE), "stages.1.learning_rate=1e-5", "stages.1.batch_size=3", "stages.0.policy.name=a"
    ) == [
        "argument stages.0.policy.name=a: unknown key 'stages.0.policy.name'; did you mean 'stages.0.name'?",
        "argument stages.1.learning_rate=1e-5: "
        "unknown key 'stages.1.learning_rate'; did you mean 'stages.1.optimizer.learning_rate'?",
        "argument stages.1.batch_size=3: unknown key 'stages.1.batch_size'; it is a setting of "
        f"{OFFLINE}; "
        "did you mean 'stages.1.rehearsal.batch_size'?",
    ]


def test_everything_that_is_wrong_is_said_at_once(small, problems):
    path = small("steps: 0", "optim: {lr: 3}", "loss:", "  clip_low: 2", "steps: 0")
    assert problems(path, "policy.lora.rank=0", "seed", "sampling.temprature=0.9") == [
        "recipe.yaml:8: 'steps' is given twice, first at recipe.yaml:4: keep one",
        "argument seed: an override is written key=value, such as optimizer.learning_rate=1e-5",
        "argument policy.lora.rank=0: 'policy.lora.rank' should be greater than or equal to 1 (got 0)",
        "recipe.yaml:8: 'steps' should be greater than or equal to 1 (got 0)",
        "argument sampling.temprature=0.9: unknown key 'sampling.temprature'; did you mean 'sampling.temperature'?",
        "recipe.yaml:7: 'loss.clip_low' should be less than 1 (got 2)",
        "recipe.yaml:5: unknown key 'optim'; did you mean 'optimizer'?",
    ]


def test_a_long_value_is_cut_short(small, problems):
    [problem] = problems(small(f"steps: {'x' * 500}"))
    assert problem.startswith("recipe.yaml:4: 'steps' should be a valid integer (got 'xxx")
    assert len(problem) < 150
