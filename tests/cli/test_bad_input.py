"""Bad input at the command line: one sentence that names the place and the mend, an exit code, no traceback."""

import shutil

import pytest

from fettle.chat import load_tokenizer
from tests.disks import full_disk

REWARD = "environments.0.reward={}"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("group_size=1", "group_size is 1, and a group of one has no baseline: use 2 or more"),
        ("gruop_size=4", "unknown key 'gruop_size'; did you mean 'group_size'?"),
        ("optimizer.lr=1e-4", "did you mean 'optimizer.learning_rate'?"),
        ("lr=1e-4", "did you mean 'optimizer.learning_rate'?"),
        ("loss.type=pppo", "did you mean ppo?"),
        ("environments.0.type=jsnl", "did you mean jsonl?"),
        ("preset=gropo", "did you mean grpo?"),
        (REWARD.format("exact_mach"), "no reward is named 'exact_mach'"),
        (REWARD.format("nowhere:score"), "reward nowhere:score cannot be imported (ModuleNotFoundError"),
        (REWARD.format("beside:leters"), "module beside has no function 'leters'"),
        ("steps=many", "'steps'"),
        ("name=../elsewhere", "'../elsewhere'"),
        ("evaluation.tasks=7", "heldout keeps 6 tasks, and evaluation.tasks asks 7"),
        (
            "reward_model.model=stage:judge",
            "reward_model.model is stage:judge, which names a stage only within a pipeline",
        ),
        ("policy.model=previous", "policy.model is previous, which names a stage only within a pipeline"),
        ("engine.sample_tokens=16", "raise engine.sample_tokens, or lower max_tokens"),
        ("steps", "an override is written key=value"),
    ],
)
def test_a_setting_that_is_wrong_ends_with_2(fettle, override, sentence):
    done = fettle("train", "tiny.yaml", override)
    assert done.code == 2
    assert sentence in done.complaint


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- type: rl\n", "recipe.yaml:1: a recipe is a mapping of settings, such as type: rl (got "),
        ("", "recipe.yaml:1: a recipe is a mapping of settings, such as type: rl (got nothing)"),
        ("type: rl\nsteps: {\n", "recipe.yaml:3: this is not YAML: "),
        ("type: rlx\n", "did you mean rl?"),
    ],
)
def test_a_file_that_is_no_recipe_ends_with_2(fettle, desk, text, complaint):
    (desk / "recipe.yaml").write_text(text)
    done = fettle("train", "recipe.yaml")
    assert done.code == 2
    assert complaint in done.complaint
    assert not (desk / "runs").exists()


def test_an_unknown_key_is_told_with_its_line(fettle, desk):
    recipe = (desk / "tiny.yaml").read_text()
    (desk / "tiny.yaml").write_text(recipe + "optimiser: {learning_rate: 1}\n")
    line = len(recipe.splitlines()) + 1
    done = fettle("train", "tiny.yaml")
    assert done.code == 2
    assert done.complaint == f"tiny.yaml:{line}: unknown key 'optimiser'; did you mean 'optimizer'?"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (REWARD.format("beside:broken"), "reward beside:broken raised on task"),
        (REWARD.format("beside:not_a_number"), "reward beside:not_a_number paid nan"),
        ("policy.model=./nowhere", "there is no model folder ./nowhere: give"),
        ("policy.model=nobody/nothing", "nobody/nothing"),
        ("environments.0.path=nowhere.jsonl", "tiny: environments.0.path is nowhere.jsonl, and there is no such file"),
        (
            "environments.0.heldout=12",
            "heldout is 12, but questions.jsonl asks only 12 different things, and one must be left to train on: "
            "add rows, or set both heldout and evaluation.tasks to 2",
        ),
    ],
)
def test_work_that_cannot_be_done_ends_with_1_and_leaves_nothing(fettle, desk, override, sentence):
    done = fettle("train", "tiny.yaml", override)
    assert done.code == 1
    assert sentence in done.complaint
    assert list(desk.glob("runs/*")) == []


def test_a_later_stages_data_are_looked_for_before_the_first_is_trained(fettle, desk):
    done = fettle("train", "pipeline.yaml", "stages.0.data={type: conversations, path: nowhere.jsonl}")
    assert done.code == 1
    assert done.complaint.startswith("warm-up: data.path is nowhere.jsonl, and there is no such file: write it")
    tasks = "{type: jsonl, path: nowhere.jsonl, reward: exact_match, heldout: 6}"
    done = fettle("train", "pipeline.yaml", f"stages.1.environments.0={tasks}")
    assert done.complaint.startswith("grpo: environments.0.path is nowhere.jsonl, and there is no such file: write it")
    assert not (desk / "runs").exists()


def test_a_run_that_fails_on_its_way_says_how_to_go_on(fettle, desk):
    tasks = "{type: jsonl, path: questions.jsonl, reward: 'beside:broken', answer_in: text, heldout: 6}"
    done = fettle("train", "pipeline.yaml", f"stages.1.environments.0={tasks}")
    [folder] = (desk / "runs").iterdir()
    assert done.code == 1
    assert done.complaint.endswith(f"; when that is mended, go on with: fettle train --resume runs/{folder.name}")


def test_a_broken_reward_is_told_with_its_reason(fettle):
    complaint = fettle("train", "tiny.yaml", REWARD.format("beside:broken")).complaint
    assert complaint.startswith("every one of 6 held-out episodes failed; the first: reward beside:broken raised on")
    assert complaint.endswith("KeyError: 'no such column'")


@pytest.fixture
def model(run, desk):
    """A copy of a model, to be spoilt."""
    shutil.copytree(run.folder / "model", desk / "model")
    return desk / "model"


@pytest.mark.parametrize("verb", ["train", "sample", "eval"])
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", "model cannot be loaded ("),
        ("tokenizer.json", "model holds no tokenizer that can be read ("),
    ],
)
def test_a_model_whose_files_are_cut_short(fettle, model, verb, name, sentence):
    (model / name).write_bytes((model / name).read_bytes()[:-20])
    arguments = {
        "train": ["tiny.yaml", "policy.model=model"],
        "sample": ["model", "hello"],
        "eval": ["model", "--recipe", "tiny.yaml"],
    }
    done = fettle(verb, *arguments[verb])
    assert done.code == 1
    if (verb, name) == ("eval", "tokenizer.json"):  # there the engine comes first, and says so of the model
        sentence = "model cannot be loaded ("
    assert sentence in done.complaint


def test_a_tokenizer_without_a_chat_template(fettle, model):
    (model / "chat_template.jinja").unlink()
    done = fettle("train", "tiny.yaml", "policy.model=model")
    assert done.code == 1
    assert "has no chat template: put a chat_template.jinja beside it" in done.complaint


@pytest.mark.parametrize("key", ["reference", "critic.model"])
@pytest.mark.parametrize(
    ("other", "sentence"),
    [("./nowhere", "there is no model folder ./nowhere: give"), ("model", "the tokenizer of model is not that of ")],
)
def test_a_companion_that_does_not_read_the_policys_tokens(fettle, model, key, other, sentence):
    tokenizer = load_tokenizer(str(model))
    tokenizer.add_tokens(["one more"])
    tokenizer.save_pretrained(model)
    needed = {"reference": ["loss.kl.coefficient=0.1"], "critic.model": ["advantage=gae", "critic.place=model"]}
    done = fettle("train", "tiny.yaml", f"{key}={other}", *needed[key])
    assert done.code == 1
    assert sentence in done.complaint


def test_runs_where_nothing_can_be_written(fettle):
    done = fettle("train", "tiny.yaml", "--runs", "tiny.yaml/runs")
    assert done.code == 1
    assert done.complaint.startswith("tiny.yaml/runs could not be written (Not a directory)")


def test_a_prompt_longer_than_the_context(fettle, desk):
    rows = (f'{{"prompt": "{"why " * 50} {n}", "answer": "because"}}\n' for n in range(12))
    (desk / "questions.jsonl").write_text("".join(rows))
    done = fettle("train", "tiny.yaml", "policy.model.context=32")
    assert done.code == 1
    assert "which leaves no room for more in a context of 32: shorten it" in done.complaint


def test_a_disk_with_no_room_for_the_model(fettle):
    with full_disk():
        done = fettle("train", "tiny.yaml")
    assert done.code == 1
    assert "/model could not be written (" in done.complaint
    assert done.complaint.endswith("free some space")


def test_a_line_that_is_not_json(fettle, desk):
    (desk / "questions.jsonl").write_text('{"prompt": "1 + 1?", "answer": "2"}\n{"prompt": \n')
    done = fettle("train", "tiny.yaml")
    assert done.code == 1
    assert done.complaint.startswith("questions.jsonl:2: not JSON")
