"""The documented settings of PPO, and the recipe that they are."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from fettle.config import (
    PPO,
    AdamW,
    Arithmetic,
    Checkpoints,
    Critic,
    Evaluation,
    Frozen,
    HardLimit,
    LocalEngine,
    PolicySpec,
    RLRun,
    Sampling,
    Value,
)
from fettle.config.arguments import told_of
from fettle.config.documented import warn_of_discount

Count = Annotated[int, Field(ge=1)]


class PPOConfig(Frozen):
    """How a policy is trained, by the documented names and with the documented defaults.

    Raises:
        ConfigError: one line for each setting that is not known or cannot be what it is.
    """

    num_epochs: Count = 100
    """Times that episodes are drawn and learned from."""
    num_rollouts_per_iteration: Count = 128
    """Episodes drawn each time, shared among the environments."""
    num_ppo_epochs: Count = 4
    """Passes over those episodes."""
    batch_size: Count = 64
    """Episodes of one optimizer step."""
    mini_batch_size: Count = 16
    """Episodes of full length that are in the model at once; gradients add up to those of the batch."""
    max_episode_length: Count = 512
    """Steps after which an episode is cut short."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Step size of the optimizer."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 0.5
    """Gradients are scaled down to this norm."""
    clip_range: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """ε: ratios beyond 1 ± ε earn no more credit."""
    value_clip_range: Annotated[float, Field(gt=0)] | None = None
    """Values are held this near to the old ones; None holds nothing."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.99
    """γ, the discount a token."""
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """λ: 1 is the return itself, 0 one token ahead."""
    value_loss_coef: Annotated[float, Field(gt=0)] = 0.5
    """What the critic's loss is multiplied by."""
    entropy_coef: Annotated[float, Field(ge=0)] = 0.01
    """What the entropy is multiplied by before it is taken off the loss."""
    target_kl: Annotated[float, Field(gt=0)] | None = None
    """An update that leads further than this from where the epoch began is undone, and the epoch is over."""
    normalize_advantages: bool = True
    """Bring advantages to mean 0 and deviation 1; returns never are."""
    eval_every: Count = 5
    """Epochs between evaluations."""
    eval_episodes: Count = 10
    """Episodes of an evaluation, shared among the environments; what they ask more than once is answered as often."""
    save_every: Count = 10
    """Epochs between checkpoints."""
    log_every: Count = 1
    """Epochs between rows of ``metrics_history``."""

    @model_validator(mode="after")
    def _batches_are_whole(self) -> "PPOConfig":
        if self.num_rollouts_per_iteration > self.batch_size and self.num_rollouts_per_iteration % self.batch_size:
            raise ValueError(
                f"num_rollouts_per_iteration is {self.num_rollouts_per_iteration}, which does not divide into batches "
                f"of {self.batch_size}: change batch_size"
            )
        if self.gamma < 1:
            warn_of_discount(self.gamma)
        return self

    # The last one, for a validator is around those that stand before it.
    @model_validator(mode="wrap")
    @classmethod
    def _is_told_in_sentences(cls, given: Any, checked: ModelWrapValidatorHandler["PPOConfig"]) -> "PPOConfig":
        with told_of(cls.__name__, cls, given if isinstance(given, Mapping) else {}):
            return checked(given)


def recipe(config: PPOConfig, *, model: str, heldout: tuple[int, ...], sampling: Sampling) -> RLRun:
    """The run that this configuration is. ``heldout`` is how many things each environment asks in an evaluation.

    Tasks come from suites in memory; of the environments named here nothing is used but how many there are.
    """
    return RLRun(
        policy=PolicySpec(model=model),
        environments=tuple(Arithmetic(heldout=max(heldout)) for _ in heldout),
        preset="ppo",
        steps=config.num_epochs,
        groups_per_step=config.num_rollouts_per_iteration,
        group_size=1,
        epochs=config.num_ppo_epochs,
        minibatches=max(config.num_rollouts_per_iteration // config.batch_size, 1),
        sampling=sampling,
        loss=PPO(
            clip_low=config.clip_range, clip_high=config.clip_range, entropy_coefficient=config.entropy_coef, kl=None
        ),
        critic=Critic(
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            normalize="batch" if config.normalize_advantages else "none",
            value=Value(coefficient=config.value_loss_coef, clip=config.value_clip_range),
        ),
        trust_region=HardLimit(limit=config.target_kl) if config.target_kl is not None else None,
        optimizer=AdamW(learning_rate=config.learning_rate, clip_norm=config.max_grad_norm),
        evaluation=Evaluation(
            every=config.eval_every,
            tasks=len(heldout) * max(heldout),
            samples=max(1, config.eval_episodes // sum(heldout)),
        ),
        checkpoints=Checkpoints(every=config.save_every),
    )


def engine_settings(config: PPOConfig, *, context: int) -> LocalEngine:
    """The engine that has ``mini_batch_size`` sequences in the model at once; ``context`` is the longest, in tokens."""
    return LocalEngine(train_tokens=max(16, config.mini_batch_size * context))
