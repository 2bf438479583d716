"""A program's own code for training on historical issues, as it stands on its page, with the import root changed.

Its preset is of a model of 14 B, which is made small here.
"""

import importlib.util
import json
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fettle.compat.rllm
from fettle.compat.rllm import RLLMConfig, train_rllm
from fettle.compat.rllm.train_rllm import flags_of
from fettle.config.load import load
from fettle.errors import StateError
from fettle.issues.instances import written
from tests.commands import typed
from tests.seeds.blocks import blocks

[SNIPPET] = blocks("rllm.md")
COMMANDS = blocks("rllm.md", "bash")
ROOT = "backend.apps.python_ml"


def small(model: str) -> RLLMConfig:
    """The preset, for one step of each stage on this machine."""
    tree = fettle.compat.rllm.get_deepcoder_config().model_dump(mode="json")
    tree["model"] |= {"model_id": model, "max_seq_length": 128}
    tree["training"] |= {"num_train_epochs": 1, "warmup_steps": 0, "learning_rate": 1e-2, "report_to": []}
    tree["training"] |= {"gradient_accumulation_steps": 2, "system_prompt": ""}
    return RLLMConfig.model_validate(tree)


@pytest.fixture(scope="module")
def benchmark(corpus, tmp_path_factory) -> Path:
    """A folder in which there is a benchmark_123, whose attempts were made elsewhere."""
    folder = tmp_path_factory.mktemp("trained")
    benchmarks = folder / "data" / "benchmarks"
    benchmarks.mkdir(parents=True)
    steps = [{"action": "read the issue", "observation": "", "response": ""}]
    made = []
    for one in corpus.problems:
        name = one.FAIL_TO_PASS[0].partition("test_")[2].partition(".py")[0]
        said = f'<edit path="{name}.py">\n    return a - b\n=======\n    return a + b\n</edit>'
        outcome = {"reward": 1.0, "resolved": True, "problem": one.instance_id}
        told = {"issue_id": one.instance_id, "metadata": {"issue_title": one.problem_statement}, "outcome": outcome}
        made.append({**told, "steps": [{**steps[0], "response": said}]})
    (benchmarks / "trajectories_benchmark_123.json").write_text(json.dumps(made))
    (benchmarks / "problems_benchmark_123.jsonl").write_text(written(corpus.problems))
    result = {"benchmark_id": "benchmark_123", "repository_folder": str(corpus.repository)}
    (benchmarks / "result_benchmark_123.json").write_text(json.dumps(result))
    return folder


def test_the_snippet_trains_by_the_recipe_that_it_writes(benchmark, model, monkeypatch, capfd):
    monkeypatch.chdir(benchmark)
    preset = small(model)
    snippet = SNIPPET.replace(ROOT, "fettle.compat.rllm").replace("= get_deepcoder_config()", "= preset")
    assert snippet.count("preset") == 1
    exec(snippet, {"preset": preset})
    trained = Path(capfd.readouterr().out.partition("Model saved to ")[2].strip())
    pipeline = load("outputs/rllm/recipe.yaml")
    assert load(trained.parents[2] / "config.yaml") == pipeline
    assert [(stage.type, stage.policy.quantization) for stage in pipeline.stages] == [("sft", "nf4"), ("rl", "nf4")]
    assert pipeline.stages[1].preset == "ppo"
    tensors = load_file(trained / "adapter_model.safetensors")
    layers = {name.rpartition(".lora_")[0].rpartition(".")[2] for name in tensors}
    assert layers == set(preset.model.lora_target_modules)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_are_taken_as_they_stand(command):
    words = shlex.split(command.replace("<benchmark_id>", "x").replace("\\\n", ""))
    assert words[:3] == ["python", "-m", f"{ROOT}.scripts.train_rllm"]
    flags = flags_of(words[3:])
    assert flags.benchmark_id == "x" or flags.train_path == Path("./data/train.jsonl")
    assert importlib.util.find_spec("fettle.compat.rllm.train_rllm") is not None


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--kubernetes"], 2, "this trains here"),
        (["--benchmark-id", "none"], 1, "there is no benchmark none"),
        (["--train-path", "none.jsonl", "--val-path", "none.jsonl"], 1, "none.jsonl cannot be read"),
        (["--config", "none.json"], 2, "none.json cannot be read"),
    ],
)
def test_both_commands_end_with_one_sentence(tmp_path, monkeypatch, capsys, words, code, says):
    monkeypatch.chdir(tmp_path)
    assert train_rllm.main(words) == code
    assert says in capsys.readouterr().err
    ended, _, err = typed("issues", "train", *words)
    assert (ended, err.count("\n")) == (code, 1)
    assert says in err


def test_a_sample_of_the_settings_is_written_and_nothing_is_trained(tmp_path):
    code, out, _ = typed("issues", "train", "--sample-config", "--output-dir", str(tmp_path), "--epochs", "9")
    assert code == 0
    assert str(tmp_path / "config.json") in out
    assert RLLMConfig.from_json(tmp_path / "config.json").training.num_train_epochs == 9


async def test_a_trainer_that_does_not_come_to_its_end_is_an_error(corpus, tmp_path, settings, capfd):
    trainer = fettle.compat.rllm.RLLMTrainer(settings, repository=corpus.repository)
    path, pipeline, _ = trainer.recipe(*[corpus.file(tmp_path / f"{at}.jsonl", at) for at in (0, 1)])
    path.write_text("type: nothing\n")
    with pytest.raises(StateError, match=r"ended with 2: what it said stands above"):
        await trainer.carry_out(path, pipeline)
    assert "recipe.yaml:1" in capfd.readouterr().err
