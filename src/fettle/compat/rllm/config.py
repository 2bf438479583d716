"""The documented settings: of the model, of training, of other machines, and of rewards."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from fettle.config.arguments import told_of
from fettle.config.base import Frozen
from fettle.errors import ConfigError
from fettle.issues.examples import SYSTEM
from fettle.tracking import write_atomically

Count = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


EXPERIMENT = "rllm_training"


class RLLMModelConfig(Frozen):
    """What is trained."""

    model_id: str = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    """A folder or a hub name."""
    output_dir: str = "./outputs/rllm"
    """Where data, recipe and run are written, unless the trainer is told otherwise."""
    max_seq_length: Annotated[int, Field(ge=16)] = 8192
    """Longest sequence, in tokens; half of it is left for a reply."""
    use_lora: bool = True
    """Whether adapters are trained, rather than whole weights."""
    lora_r: Count = 16
    """Rank of the adapters."""
    lora_alpha: Positive = 32.0
    """Their updates are scaled by it over the rank."""
    lora_dropout: Share = 0.05
    """Share of their inputs that is dropped."""
    lora_target_modules: Annotated[tuple[str, ...], Field(min_length=1)] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """The layers that get one."""
    use_8bit: bool = False
    """Store frozen weights in 8 bits."""
    use_4bit: bool = True
    """Store frozen weights in 4 bits (nf4)."""
    seed: Steps = 42
    """Every draw is keyed by it."""

    @model_validator(mode="after")
    def _one_way_of_storing(self) -> "RLLMModelConfig":
        if self.use_8bit and self.use_4bit:
            raise ValueError("use_8bit and use_4bit are both true, and weights are stored one way: set one to false")
        if not self.use_lora and (self.use_8bit or self.use_4bit):
            raise ValueError("use_lora is false, and whole weights stay as they are: set use_8bit and use_4bit false")
        return self


class RLLMTrainingConfig(Frozen):
    """How it is trained: shown what solved problems first, then by reinforcement."""

    algorithm: Literal["ppo", "grpo"] = "ppo"
    """Of reinforcement."""
    learning_rate: Positive = 5e-5
    """Of both stages."""
    num_train_epochs: Count = 3
    """Passes over the data, of each stage."""
    per_device_train_batch_size: Count = 1
    """Sequences in the model at once."""
    per_device_eval_batch_size: Count = 1
    """Groups of replies that are drawn at once."""
    gradient_accumulation_steps: Count = 16
    """Times ``per_device_train_batch_size`` it is the sequences of one optimizer step."""
    warmup_steps: Steps = 100
    """Steps over which the learning rate climbs."""
    weight_decay: Weight = 0.01
    """Each step multiplies the weights by 1 less this times the learning rate."""
    logging_steps: Count = 10
    """Another number is refused: every step is told, here and to trackers."""
    save_steps: Count = 500
    """Steps between checkpoints."""
    eval_steps: Count = 500
    """Steps between evaluations."""
    save_total_limit: Count = 3
    """Newest checkpoints that are kept, beside the best."""
    fp16: bool = True
    """Half precision on a GPU, which is bfloat16 here: it needs no scaling of losses. A CPU is left in float32."""
    bf16: bool = False
    """bfloat16, wherever it is computed."""
    optim: Literal["adamw_torch"] = "adamw_torch"
    """AdamW with PyTorch's decays."""
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate changes."""
    max_grad_norm: Weight = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    report_to: tuple[Literal["mlflow", "wandb", "tensorboard"], ...] = ("mlflow",)
    """Who is told of the numbers; none: nobody."""
    early_stopping: bool = False
    """Whether to end when evaluations get no better."""
    early_stop_patience: Count = 3
    """After how many of them."""
    system_prompt: str = SYSTEM
    """What every question begins with; empty for nothing."""

    @model_validator(mode="after")
    def _every_step_is_told(self) -> "RLLMTrainingConfig":
        if self.logging_steps != RLLMTrainingConfig.model_fields["logging_steps"].default:
            raise ValueError(f"logging_steps is {self.logging_steps}, and every step is told here: leave it out")
        return self


class RLLMDistributedConfig(Frozen):
    """What other machines there are: read where training is asked to be ``distributed``."""

    use_ray: bool = True
    """False is refused: there is no other way here."""
    num_workers: Count = 4
    """Each brings as many ranks of the engine as it has GPUs."""
    gpus_per_worker: Annotated[int, Field(ge=0)] = 1
    """A rank computes on one device; a worker without a GPU is one rank."""
    cpus_per_worker: Count = 4
    """Another number is refused: ``engine.threads`` says it of a rank."""
    memory_per_worker_gb: Count = 16
    """Another number is refused: a rank takes what it needs."""


class RLLMRewardConfig(Frozen):
    """What counts how much."""

    bug_fix_weight: Weight = 1.0
    """Of what solved a bug, among what is shown."""
    feature_weight: Weight = 1.0
    """Of what made a feature."""
    documentation_weight: Weight = 0.8
    """Of what mended documents."""
    code_quality_weight: Weight = 0.3
    """Of bringing no violation of a linter's rules."""
    readability_weight: Weight = 0.3
    """Of new lines that are short and not deeply nested."""
    test_coverage_weight: Weight = 0.3
    """Of tests that pass, beyond 1."""
    completion_time_weight: Weight = 0.2
    """Of a reply that is soon over."""
    use_kl_penalty: bool = True
    """Whether the policy is held near where it starts."""
    kl_penalty_weight: Weight = 0.1
    """How strongly."""

    @model_validator(mode="after")
    def _something_is_shown(self) -> "RLLMRewardConfig":
        if not self.bug_fix_weight:
            raise ValueError("bug_fix_weight is 0, and by it problems of no kind are weighed: nothing would be shown")
        return self


class RLLMConfig(Frozen):
    """All of them, by their documented names and with the documented defaults.

    Raises:
        ConfigError: one line for each setting that is not known or cannot be what it is.
    """

    model: RLLMModelConfig = RLLMModelConfig()
    """What is trained."""
    training: RLLMTrainingConfig = RLLMTrainingConfig()
    """How."""
    distributed: RLLMDistributedConfig = RLLMDistributedConfig()
    """On what other machines."""
    reward: RLLMRewardConfig = RLLMRewardConfig()
    """For what."""
    _mlflow: tuple[str, str | None] = PrivateAttr(default=(EXPERIMENT, None))

    @property
    def mlflow(self) -> tuple[str, str | None]:
        """Under which experiment MLflow files its runs, and at which address: no settings, but what was set up."""
        return self._mlflow

    def set_mlflow(self, experiment: str, uri: str | None) -> None:
        """Say so, to everything that is given this config: a trainer is not handed who is told."""
        self._mlflow = (experiment, uri)

    # The last one, for a validator is around those that stand before it.
    @model_validator(mode="wrap")
    @classmethod
    def _is_told_in_sentences(cls, given: Any, checked: ModelWrapValidatorHandler["RLLMConfig"]) -> "RLLMConfig":
        with told_of(cls.__name__, cls, given if isinstance(given, Mapping) else {}):
            return checked(given)

    @classmethod
    def from_json(cls, path: str | Path) -> "RLLMConfig":
        """The settings in a file, and the defaults of those that it leaves out.

        Raises:
            ConfigError: it cannot be read, or a setting is not known or cannot be what it is.
        """
        try:
            tree = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read ({error}): give settings in JSON") from error
        if not isinstance(tree, Mapping):
            raise ConfigError(f"{path} holds no mapping of settings, such as {{'model': {{'lora_r': 8}}}}")
        return cls.model_validate(tree)

    def save_to_json(self, path: str | Path) -> None:
        """Write every setting."""
        write_atomically(Path(path), json.dumps(self.model_dump(mode="json"), indent=2) + "\n")


def get_default_config() -> RLLMConfig:
    """The documented defaults."""
    return RLLMConfig()


def get_deepcoder_config() -> RLLMConfig:
    """The documented preset for a model of 14 B with long replies."""
    return RLLMConfig(
        model=RLLMModelConfig(model_id="deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", max_seq_length=16384),
        training=RLLMTrainingConfig(learning_rate=1e-5, num_train_epochs=5),
        distributed=RLLMDistributedConfig(num_workers=8, gpus_per_worker=4),
        reward=RLLMRewardConfig(code_quality_weight=0.4, test_coverage_weight=0.4),
    )


def get_config_for_model(model_id: str) -> RLLMConfig:
    """The documented defaults, for another model."""
    return RLLMConfig(model=RLLMModelConfig(model_id=model_id))
