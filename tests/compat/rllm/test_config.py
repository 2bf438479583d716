"""The documented settings: their defaults, their presets, their file, and what is refused."""

import json

import pytest

from fettle.compat.rllm import RLLMConfig, get_config_for_model, get_deepcoder_config, get_default_config
from fettle.errors import ConfigError

DOCUMENTED = {
    "model": {
        "model_id": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        "output_dir": "./outputs/rllm",
        "max_seq_length": 8192,
        "use_lora": True,
        "lora_r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "use_8bit": False,
        "use_4bit": True,
        "seed": 42,
    },
    "training": {
        "learning_rate": 5e-5,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 1,
        "gradient_accumulation_steps": 16,
        "warmup_steps": 100,
        "weight_decay": 0.01,
        "logging_steps": 10,
        "save_steps": 500,
        "eval_steps": 500,
        "save_total_limit": 3,
        "fp16": True,
        "bf16": False,
        "optim": "adamw_torch",
        "lr_scheduler_type": "cosine",
        "max_grad_norm": 1,
        "report_to": ["mlflow"],
    },
    "distributed": {"use_ray": True, "num_workers": 4},
}


def test_the_defaults_are_the_documented_ones():
    told = json.loads(get_default_config().model_dump_json())
    for section, values in DOCUMENTED.items():
        assert {name: told[section][name] for name in values} == values


def test_the_preset_for_code_is_the_documented_one():
    found = get_deepcoder_config()
    assert (found.model.max_seq_length, found.training.learning_rate, found.training.num_train_epochs) == (
        16384,
        1e-5,
        5,
    )
    assert "14B" in found.model.model_id
    assert (found.distributed.num_workers, found.distributed.gpus_per_worker) == (8, 4)
    assert (found.reward.code_quality_weight, found.reward.test_coverage_weight) == (0.4, 0.4)
    assert get_config_for_model("mine").model.model_id == "mine"


def test_a_file_reads_back_to_the_same(tmp_path):
    path = tmp_path / "config.json"
    get_deepcoder_config().save_to_json(path)
    assert RLLMConfig.from_json(path) == get_deepcoder_config()
    path.write_text('{"model": {"lora_r": 8}}')
    assert RLLMConfig.from_json(path).model.lora_r == 8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"model": {"lora_rank": 8}}', "RLLMConfig: unknown key 'model.lora_rank'"),
        ('{"training": {"learning_rate": 0}}', r"'training\.learning_rate' should be greater than 0"),
        ('{"training": {"optim": "sgd"}}', "none of adamw_torch"),
        ('{"model": {"use_8bit": true}}', "stored one way"),
        ('{"model": {"use_lora": false}}', "use_4bit false"),
        ('{"reward": {"bug_fix_weight": 0}}', "nothing would be shown"),
        ('{"training": {"logging_steps": 5}}', "every step is told here: leave it out"),
        ("[]", "holds no mapping"),
        ("{", "cannot be read"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(tmp_path, text, says):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        RLLMConfig.from_json(path)
