"""Runs that learn from what is there already: demonstrations, preferences, ratings."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.data import DemonstrationsConfig, Episodes, PreferenceDataConfig, Ratings
from fettle.config.losses import DPO, KTO, PreferenceLossConfig, RewardModeling
from fettle.config.parts import Checkpoints, FolderName, HeldoutLoss, HeldoutPairs
from fettle.config.policy import AdamW, Constant, EngineConfig, LocalEngine, PolicySpec, Schedule
from fettle.config.trackers import TrackerConfig


class Targets(Frozen):
    """What is learned of a conversation: behaviour cloning, a world model, or both at once."""

    actions: Annotated[float, Field(ge=0)] = 1.0
    """Weight of what the assistant says."""
    observations: Annotated[float, Field(ge=0)] = 0.0
    """Weight of what it is answered: the messages that follow its first."""

    @model_validator(mode="after")
    def _something_is_learned(self) -> "Targets":
        if not self.actions + self.observations:
            raise ValueError("targets.actions and targets.observations are both 0: nothing would be learned")
        return self


class RewardWeighting(Frozen):
    """A conversation weighs what it earned."""

    kind: Literal["reward", "advantage"] = "reward"
    """``reward``: in proportion to it; ``advantage``: exp((reward - mean) / temperature) (arXiv:1910.00177)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of advantage weighting: smaller favours the best."""

    @model_validator(mode="after")
    def _temperature_is_read(self) -> "RewardWeighting":
        if self.kind == "reward" and self.temperature != 1:
            raise ValueError(
                f"temperature is {self.temperature:g}, and weights in proportion to the reward have none: "
                "use kind: advantage, or leave it out"
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
    targets: Targets = Targets()
    """Which messages are learned: what the assistant says, what it is answered, or both."""
    weighting: RewardWeighting | None = None
    """Weigh each conversation by its reward; absent means that all weigh the same."""
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
    profile: bool = False
    """Write where each second of a step went into the run folder."""
    trackers: tuple[TrackerConfig, ...] = ()
    """Where metrics go besides the run's folder."""

    @model_validator(mode="after")
    def _no_head_is_trained(self) -> "SFTRun":
        _check_headless(self.policy)
        return self

    @model_validator(mode="after")
    def _weights_come_from_rewards(self) -> "SFTRun":
        if self.weighting is not None and not isinstance(self.data, Episodes):
            raise ValueError(f"weighting needs rewards, and data of type {self.data.type} has none: use episodes")
        return self


class Comparison(Frozen):
    """What runs that learn from compared replies have in common."""

    type: str
    name: FolderName
    """First part of the run folder's name."""
    seed: int = 0
    """Every draw of the run is keyed by it."""
    policy: PolicySpec
    """What is trained."""
    engine: EngineConfig = LocalEngine()
    """Where it is computed."""
    data: PreferenceDataConfig
    """What is learned from."""
    steps: Annotated[int, Field(ge=1)] = 100
    """Optimizer steps."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Pairs, or rated replies, in one step."""
    max_tokens: Annotated[int, Field(ge=2)] = 2048
    """Longest conversation; a longer one is an error that quotes how it begins."""
    optimizer: AdamW = AdamW()
    """The optimizer."""
    schedule: Schedule = Constant()
    """How the learning rate changes."""
    evaluation: HeldoutPairs = HeldoutPairs()
    """Accuracy on what is held out."""
    checkpoints: Checkpoints = Checkpoints()
    """When what is trained is saved."""
    profile: bool = False
    """Write where each second of a step went into the run folder."""
    trackers: tuple[TrackerConfig, ...] = ()
    """Where metrics go besides the run's folder."""


class PreferenceRun(Comparison):
    """Learning from which of two replies is better, with no reward model in between."""

    type: Literal["preference"] = "preference"
    name: FolderName = "preference"
    """First part of the run folder's name."""
    loss: PreferenceLossConfig = DPO()
    """The loss."""
    reference: str | None = None
    """What the policy is compared with: a folder or a hub name; null is where the run starts."""

    @model_validator(mode="after")
    def _no_head_is_trained(self) -> "PreferenceRun":
        _check_headless(self.policy)
        return self

    @model_validator(mode="after")
    def _loss_fits_data(self) -> "PreferenceRun":
        if isinstance(self.loss, KTO) != isinstance(self.data, Ratings):
            raise ValueError("kto learns from ratings, and the other losses from pairs: change loss.type or data.type")
        if isinstance(self.loss, KTO) and self.batch_size < 2:
            raise ValueError("kto measures its baseline within a batch: use a batch_size of 2 or more")
        return self

    @model_validator(mode="after")
    def _reference_is_read(self) -> "PreferenceRun":
        compares = isinstance(self.loss, KTO) or (isinstance(self.loss, DPO) and not self.loss.reference_free)
        if self.reference is not None and not compares:
            raise ValueError(
                f"reference is {self.reference}, and this {self.loss.type} compares with none: leave it out"
            )
        return self


class RewardModelRun(Comparison):
    """A model that scores replies, learned from which of two is better. Its head is a reward's."""

    type: Literal["reward_model"] = "reward_model"
    name: FolderName = "reward-model"
    """First part of the run folder's name."""
    loss: RewardModeling = RewardModeling()
    """The loss."""

    @model_validator(mode="after")
    def _head_is_a_reward_s(self) -> "RewardModelRun":
        if self.policy.head == "value":
            raise ValueError("policy.head is value, and a reward model's is its own: leave it out")
        return self

    @model_validator(mode="after")
    def _data_are_pairs(self) -> "RewardModelRun":
        if isinstance(self.data, Ratings):
            raise ValueError("a reward model compares two replies: use data of type preferences or worked_pairs")
        return self


def _check_headless(policy: PolicySpec) -> None:
    if policy.head is not None:
        raise ValueError(f"policy.head is {policy.head}, and nothing in this run trains it: leave it out")
