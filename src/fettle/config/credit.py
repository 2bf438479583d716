"""How reinforcement learning gives credit: baselines and critics, learned rewards, corrections, limits."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.data import DemonstrationsConfig
from fettle.config.losses import Value
from fettle.config.policy import AdamW

Advantage = Literal["group_normalized", "group_centered", "leave_one_out", "batch_normalized", "gae", "none"]


class DynamicSampling(Frozen):
    """Draw further groups until enough of them have rewards that differ (DAPO)."""

    max_rounds: Annotated[int, Field(ge=1)] = 10
    """Rounds of sampling for one step; after them the step goes on with what it has."""


class Overlong(Frozen):
    """Completions near the length limit lose reward, in a straight line down to -1 at the limit (DAPO)."""

    buffer: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of ``sampling.max_tokens`` over which the penalty grows."""


class Critic(Frozen):
    """A learned estimate of what a half-finished reply will earn; ``advantage: gae`` is measured against it."""

    place: Literal["head", "model"] = "head"
    """``head``: a number beside the policy's own tokens, on shared weights; ``model``: a model of its own."""
    model: str | None = None
    """Where a critic of its own starts (a reward model, say); null is where the policy starts."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    """γ, the discount a token: below 1 the end of a long answer counts for almost nothing at its beginning."""
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """λ of generalised advantage estimation: 1 is the return itself, 0 one step ahead."""
    normalize: Literal["none", "batch", "group"] = "batch"
    """Over which tokens advantages are brought to mean 0 and deviation 1; returns never are."""
    value: Value = Value()
    """The critic's loss."""
    optimizer: AdamW | None = None
    """Of a critic of its own; null is the policy's."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """First steps of a run in which only the critic learns, which must then be a model of its own."""

    @model_validator(mode="after")
    def _shared_weights_have_one_start(self) -> "Critic":
        if self.place == "head" and (self.model is not None or self.optimizer is not None):
            raise ValueError("a critic that is a head shares the policy's model and optimizer: use place: model")
        if self.place == "head" and self.warmup_steps:
            raise ValueError(
                "a critic that is a head cannot learn without moving the policy's weights: use place: model"
            )
        return self


class Monitor(Frozen):
    """Watches for the learned reward and the true one to part ways."""

    window: Annotated[int, Field(ge=2)] = 3
    """Evaluations over which they are compared."""
    tolerance: Annotated[float, Field(ge=0)] = 0.02
    """By how much the true reward may fall from its best while the learned one rises, before the alarm."""
    stop: bool = False
    """End the run at an alarm; otherwise it is only told."""


class LearnedReward(Frozen):
    """A reward model's score as the reward; the environments' own reward is then only measured, as the true one."""

    model: str
    """A run folder, a checkpoint of a reward model, or ``stage:<name>`` within a pipeline."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """What scores are multiplied by."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Scores are held within ±clip after scaling; null leaves them."""
    monitor: Monitor = Monitor()
    """Watches for reward hacking."""


class KLControl(Frozen):
    """The KL penalty's coefficient follows what is measured."""

    target: Annotated[float, Field(gt=0)]
    """The divergence from the reference that is wanted, in nats a token."""
    kind: Literal["proportional", "doubling"] = "proportional"
    """``proportional``: Ziegler et al., 2019; ``doubling``: halved below target / 1.5, doubled above 1.5 target."""
    horizon: Annotated[int, Field(ge=1)] = 10000
    """Episodes over which a proportional controller acts."""


class QuadraticPenalty(Frozen):
    """``coefficient · max(0, KL - limit)²`` in the loss: soft, whatever its name says elsewhere."""

    type: Literal["quadratic"] = "quadratic"
    limit: Annotated[float, Field(gt=0)] = 0.01
    """Divergence, in nats a token, beyond which it costs."""
    coefficient: Annotated[float, Field(gt=0)] = 0.1
    """What the squared excess is multiplied by."""
    of: Literal["sampler", "reference"] = "sampler"
    """From what the policy is held: the sampler that drew the batch, or the reference."""


class AdaptivePenalty(Frozen):
    """A KL penalty whose coefficient halves and doubles to keep near a target (Schulman et al., 2017, section 4)."""

    type: Literal["adaptive"] = "adaptive"
    target: Annotated[float, Field(gt=0)] = 0.01
    """Divergence wanted after a batch's updates, in nats a token."""
    coefficient: Annotated[float, Field(gt=0)] = 1.0
    """The first coefficient."""
    of: Literal["sampler", "reference"] = "sampler"
    """From what the policy is held: the sampler that drew the batch, or the reference."""


class LagrangianPenalty(Frozen):
    """A KL penalty whose coefficient is the multiplier of the constraint, raised while it is broken."""

    type: Literal["lagrangian"] = "lagrangian"
    limit: Annotated[float, Field(gt=0)] = 0.01
    """Divergence allowed, in nats a token."""
    rate: Annotated[float, Field(gt=0)] = 10.0
    """By how much the multiplier moves for each nat over or under the limit."""
    of: Literal["sampler", "reference"] = "sampler"
    """From what the policy is held: the sampler that drew the batch, or the reference."""


class HardLimit(Frozen):
    """No update leaves the policy further than the limit: one that would is undone, and the batch is over."""

    type: Literal["hard"] = "hard"
    limit: Annotated[float, Field(gt=0)] = 0.01
    """Divergence allowed, in nats a token, measured on the batch after each update."""
    of: Literal["sampler", "reference"] = "sampler"
    """From what the policy is held: the sampler that drew the batch, or the reference."""


TrustRegion = Annotated[QuadraticPenalty | AdaptivePenalty | LagrangianPenalty | HardLimit, Field(discriminator="type")]
"""How conservative updates are held."""


class Correction(Frozen):
    """Weights for a sampler that has other probabilities than the policy that learns: by its arithmetic, or its age."""

    kind: Literal["truncate", "mask"] = "truncate"
    """``truncate`` caps a token's weight; ``mask`` drops tokens whose weight is beyond the cap, either way."""
    cap: Annotated[float, Field(gt=1)] = 2.0
    """Greatest ratio of the trainer's probability to the sampler's."""
    level: Literal["token", "sequence"] = "token"
    """Whose ratio: the token's own, or that of its whole sequence."""


class Planning(Frozen):
    """Hierarchy-aware credit: ``A + alpha |A|`` on the tokens of planning phrases (HICRA, arXiv:2509.03646)."""

    alpha: Annotated[float, Field(ge=0)] = 0.2
    """How much more a planning token counts."""
    phrases: Annotated[tuple[str, ...], Field(min_length=1)]
    """What planning sounds like: phrases, whatever their case."""

    @model_validator(mode="after")
    def _phrases_have_words(self) -> "Planning":
        for index, phrase in enumerate(self.phrases):
            if not phrase.strip():
                raise ValueError(f"phrases.{index} is blank: write what marks a plan, or leave it out")
        return self


class Rehearsal(Frozen):
    """Demonstrations learned from in every step, beside the rewards (hybrid SFT and RL)."""

    data: DemonstrationsConfig
    """What is rehearsed."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Conversations in one step."""
    coefficient: Annotated[float, Field(gt=0)] = 0.1
    """What their loss, the mean over trained tokens, is multiplied by."""


class Teacher(Frozen):
    """On-policy distillation: a stronger model says of each token drawn how likely it would have been."""

    model: str
    """A folder, a hub name, or ``stage:<name>`` within a pipeline; its tokenizer must be the policy's."""
    coefficient: Annotated[float, Field(gt=0)] = 1.0
    """What ``log teacher - log policy`` is multiplied by before it is added to a token's advantage."""


class Replay(Frozen):
    """Groups of earlier steps are learned from again, corrected by the importance ratio."""

    capacity: Annotated[int, Field(ge=1)] = 256
    """Groups kept."""
    groups: Annotated[int, Field(ge=1)] = 8
    """Groups drawn from the buffer for each step, beside the new ones."""
    max_age: Annotated[int, Field(ge=1)] | None = None
    """Policy versions after which a group is dropped; null keeps it until it is crowded out."""
