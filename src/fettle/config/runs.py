"""Whole runs: one class a kind of recipe."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from fettle.config.base import Frozen
from fettle.config.data import DemonstrationsConfig
from fettle.config.environments import EnvironmentConfig
from fettle.config.layers import laid_over
from fettle.config.losses import PPO, PolicyLossConfig
from fettle.config.policy import AdamW, Constant, EngineConfig, LocalEngine, PolicySpec, Schedule
from fettle.config.presets import PRESETS


def _names_a_folder(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ValueError(
            f"name is {name!r}, and a folder is named for it: use letters, digits, dots, dashes and underscores"
        )
    return name


FolderName = Annotated[str, AfterValidator(_names_a_folder)]


class Evaluation(Frozen):
    """Scoring on held-out tasks."""

    every: Annotated[int, Field(ge=1)] = 20
    """Steps between evaluations; there is always one before the first step and one after the last."""
    tasks: Annotated[int, Field(ge=1)] = 200
    """Held-out tasks scored, shared among the environments."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Temperature of the scored completions; 0 takes the likeliest token."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many evaluations without a better score; null never stops early."""
    target: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Stop once the held-out score reaches this; null never stops early."""


class HeldoutLoss(Frozen):
    """The loss on held-out conversations."""

    every: Annotated[int, Field(ge=1)] = 20
    """Steps between evaluations; there is always one before the first step and one after the last."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many evaluations without a lower loss; null never stops early."""


class Sampling(Frozen):
    """How completions are drawn while training: always from the whole distribution, so that ratios mean something."""

    max_tokens: Annotated[int, Field(ge=1)] = 256
    """Most tokens in one completion."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Logits are divided by it, when drawing and when training alike."""
    stop: tuple[str, ...] = ()
    """A completion ends with the token that completes one of these strings."""


class Checkpoints(Frozen):
    """When the policy is saved, and what is kept."""

    every: Annotated[int, Field(ge=1)] = 20
    """Steps between checkpoints; there is always one after the last step."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Newest checkpoints kept, besides the one with the best held-out score."""


class TokenMean(Frozen):
    """Each token counts the same: the sum is divided by the batch's trained tokens (DAPO)."""

    type: Literal["token_mean"] = "token_mean"


class SequenceMean(Frozen):
    """Each sequence counts the same, and each token the same within its sequence (GRPO)."""

    type: Literal["sequence_mean"] = "sequence_mean"


class SequenceSum(Frozen):
    """Tokens are summed within a sequence, and sequences averaged (REINFORCE, RLOO)."""

    type: Literal["sequence_sum"] = "sequence_sum"


class FixedLength(Frozen):
    """Tokens are summed and divided by the sequences times ``sampling.max_tokens`` (Dr. GRPO)."""

    type: Literal["fixed_length"] = "fixed_length"


Reduction = Annotated[TokenMean | SequenceMean | SequenceSum | FixedLength, Field(discriminator="type")]
"""How per-token losses become one number."""

Advantage = Literal["group_normalized", "group_centered", "leave_one_out", "batch_normalized"]


class DynamicSampling(Frozen):
    """Draw further groups until enough of them have rewards that differ (DAPO)."""

    max_rounds: Annotated[int, Field(ge=1)] = 10
    """Rounds of sampling for one step; after them the step goes on with what it has."""


class Overlong(Frozen):
    """Completions near the length limit lose reward, in a straight line down to -1 at the limit (DAPO)."""

    buffer: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of ``sampling.max_tokens`` over which the penalty grows."""


class RLRun(Frozen):
    """Reinforcement learning on tasks with a reward."""

    type: Literal["rl"] = "rl"
    name: FolderName = "rl"
    """First part of the run folder's name."""
    seed: int = 0
    """Every draw of the run is keyed by it."""
    policy: PolicySpec
    """What is trained."""
    engine: EngineConfig = LocalEngine()
    """Where it is computed."""
    environments: Annotated[tuple[EnvironmentConfig, ...], Field(min_length=1)]
    """Where tasks come from; several are mixed by weight."""
    steps: Annotated[int, Field(ge=1)] = 100
    """Batches of episodes to learn from."""
    groups_per_step: Annotated[int, Field(ge=1)] = 16
    """Tasks in one batch."""
    group_size: Annotated[int, Field(ge=1)] = 8
    """Completions drawn for each task."""
    sampling: Sampling = Sampling()
    """How completions are drawn."""
    max_staleness: Annotated[int, Field(ge=0)] = 0
    """Policy versions by which a batch may be older than the policy it trains; 0 is strictly on-policy. Above 0 a run
    that was interrupted by hand, between checkpoints, goes on otherwise than it would have."""
    preset: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce_pp"] = "grpo"
    """The algorithm whose row fills in the settings below that a recipe leaves out."""
    loss: PolicyLossConfig = PPO()
    """The loss, with its KL penalty."""
    advantage: Advantage = "group_normalized"
    """How rewards become credit."""
    reduction: Reduction = TokenMean()
    """How per-token losses become one number."""
    dynamic_sampling: DynamicSampling | None = None
    """Replace groups that cannot teach; absent means that they stay, with no gradient."""
    overlong: Overlong | None = None
    """Shape the reward near the length limit; absent means no shaping."""
    minibatches: Annotated[int, Field(ge=1)] = 1
    """Optimizer steps made from one batch."""
    optimizer: AdamW = AdamW()
    """The optimizer."""
    schedule: Schedule = Constant()
    """How the learning rate changes."""
    evaluation: Evaluation = Evaluation()
    """Scoring on held-out tasks."""
    checkpoints: Checkpoints = Checkpoints()
    """When the policy is saved."""

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_in(cls, given: Any) -> Any:
        row = PRESETS.get(str(given.get("preset", "grpo"))) if isinstance(given, Mapping) else None
        return laid_over(row, given) if row is not None else given

    @model_validator(mode="after")
    def _groups_can_teach(self) -> "RLRun":
        if self.advantage != "batch_normalized" and self.group_size < 2:
            raise ValueError(f"group_size is {self.group_size}, and a group of one has no baseline: use 2 or more")
        if self.group_size < 2 and self.dynamic_sampling is not None:
            raise ValueError("dynamic_sampling looks for rewards that differ, and in a group of one none do: drop it")
        if self.max_staleness % self.minibatches:
            raise ValueError(
                f"max_staleness is {self.max_staleness}, and a batch makes {self.minibatches} policy versions: "
                "use a multiple of minibatches"
            )
        share = -(-self.evaluation.tasks // len(self.environments))
        for index, environment in enumerate(self.environments):
            if environment.heldout < share:
                raise ValueError(
                    f"environments.{index}.heldout keeps {environment.heldout} tasks, "
                    f"and evaluation.tasks asks {share} of it: raise the one or lower the other"
                )
        if self.groups_per_step % self.minibatches:
            raise ValueError(
                f"groups_per_step ({self.groups_per_step}) does not divide into {self.minibatches} minibatches"
            )
        return self


class SFTRun(Frozen):
    """Supervised fine-tuning on conversations: only what the assistant says is trained on."""

    type: Literal["sft"] = "sft"
    name: FolderName = "sft"
    """First part of the run folder's name."""
    seed: int = 0
    """Every draw of the run is keyed by it."""
    policy: PolicySpec
    """What is trained."""
    engine: EngineConfig = LocalEngine()
    """Where it is computed."""
    data: DemonstrationsConfig
    """What is learned from."""
    steps: Annotated[int, Field(ge=1)] = 100
    """Optimizer steps."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Conversations in one step."""
    max_tokens: Annotated[int, Field(ge=2)] = 2048
    """Longest conversation; a longer one is an error that quotes how it begins."""
    optimizer: AdamW = AdamW()
    """The optimizer."""
    schedule: Schedule = Constant()
    """How the learning rate changes."""
    evaluation: HeldoutLoss = HeldoutLoss()
    """The loss on held-out conversations."""
    checkpoints: Checkpoints = Checkpoints()
    """When the policy is saved."""


class Pipeline(Frozen):
    """Runs one after another, each starting from the checkpoint that the one before left."""

    type: Literal["pipeline"] = "pipeline"
    name: FolderName = "pipeline"
    """First part of the run folder's name."""
    stages: Annotated[tuple[Annotated[SFTRun | RLRun, Field(discriminator="type")], ...], Field(min_length=1)]
    """The runs. ``policy.model`` of all but the first is the word ``previous``."""

    @model_validator(mode="after")
    def _stages_are_chained(self) -> "Pipeline":
        for index, stage in enumerate(self.stages):
            if (stage.policy.model == "previous") != (index > 0):
                what = "`previous`" if index else "a model"
                raise ValueError(f"stages.{index}.policy.model must be {what}: stages are chained in order")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"two stages share a name ({', '.join(names)}): each has a folder of its own")
        return self


RunConfig = Annotated[RLRun | SFTRun | Pipeline, Field(discriminator="type")]
"""Any recipe."""
