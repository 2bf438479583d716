"""Reinforcement learning runs."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fettle.config.asynchronous import Finish, InFlight, RayWorkers
from fettle.config.base import Frozen
from fettle.config.credit import (
    Advantage,
    Correction,
    Critic,
    DynamicSampling,
    KLControl,
    LearnedReward,
    Overlong,
    Planning,
    Rehearsal,
    Replay,
    Teacher,
    TrustRegion,
)
from fettle.config.environments import EnvironmentConfig
from fettle.config.games import OwnPlayer, PlayerConfig
from fettle.config.layers import laid_over
from fettle.config.losses import PPO, PolicyLossConfig
from fettle.config.parts import Checkpoints, Evaluation, FolderName, Limits, Reduction, Sampling, TokenMean
from fettle.config.policy import AdamW, Constant, EngineConfig, LocalEngine, PolicySpec, Schedule, TinyModel
from fettle.config.presets import PRESETS
from fettle.config.rewards import Alarms
from fettle.config.trackers import TrackerConfig

Preset = Literal[
    "grpo",
    "dr_grpo",
    "dapo",
    "gspo",
    "cispo",
    "rloo",
    "reinforce_pp",
    "ppo",
    "conservative_ppo",
    "off_policy",
    "distill",
]

UNGROUPED = frozenset({"batch_normalized", "gae", "none"})
"""Advantages that do not compare the members of a group, so that one member is enough."""

FOR_ONE_LEARNER = ("critic", "replay", "rehearsal", "teacher", "planning", "kl_control", "trust_region")
"""What a run has for its policy alone."""


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
    limits: Limits = Limits()
    """Where episodes are cut short, and how many of them may fail."""
    players: dict[str, PlayerConfig] = {}
    """Who plays the players of games, by name; the policy plays all that are not named here, against itself."""
    max_staleness: Annotated[int, Field(ge=0)] = 0
    """Policy versions by which a batch may be older than the policy it trains; 0 is strictly on-policy. Above 0 a run
    that was interrupted by hand, between checkpoints, goes on otherwise than it would have."""
    in_flight: InFlight = Finish()
    """What becomes of replies that are being drawn when the policy is updated, where ``max_staleness`` is above 0."""
    environment_workers: RayWorkers | None = None
    """Where episodes are played; null: in the run's own process."""
    preset: Preset = "grpo"
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
    mask_truncated: bool = False
    """Leave completions that a limit cut short out of the loss; their reward still counts in baselines."""
    critic: Critic | None = None
    """What ``advantage: gae`` is measured against."""
    reference: str | None = None
    """Where the KL penalty pulls to: a folder or a hub name; null is where the run starts."""
    kl_control: KLControl | None = None
    """Adapts the coefficient of the loss's KL penalty; absent means that it stays."""
    trust_region: TrustRegion | None = None
    """Holds each update near the policy it started from (conservative PPO); absent means that only the loss does."""
    reward_model: LearnedReward | None = None
    """Learn from a reward model's scores; absent means from the environments' own rewards."""
    correction: Correction | None = None
    """Weights for a sampler that computes other probabilities than the trainer; absent means none."""
    planning: Planning | None = None
    """More credit for planning tokens; absent means that all tokens count the same."""
    rehearsal: Rehearsal | None = None
    """Demonstrations in every step; absent means none."""
    teacher: Teacher | None = None
    """On-policy distillation; absent means none."""
    replay: Replay | None = None
    """Learn from earlier steps again; absent means that each batch is used once."""
    epochs: Annotated[int, Field(ge=1)] = 1
    """Passes over one batch."""
    minibatches: Annotated[int, Field(ge=1)] = 1
    """Optimizer steps made from one pass over a batch."""
    optimizer: AdamW = AdamW()
    """The optimizer."""
    schedule: Schedule = Constant()
    """How the learning rate changes."""
    evaluation: Evaluation = Evaluation()
    """Scoring on held-out tasks."""
    alarms: Alarms = Alarms()
    """Watches held-out replies for signs that the reward is hacked; an alarm is told, and ends nothing."""
    checkpoints: Checkpoints = Checkpoints()
    """When the policy is saved."""
    profile: bool = False
    """Write where each second of a step went into the run folder."""
    trackers: tuple[TrackerConfig, ...] = ()
    """Where metrics go besides the run's folder."""

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_in(cls, given: Any) -> Any:
        row = PRESETS.get(str(given.get("preset", "grpo"))) if isinstance(given, Mapping) else None
        return laid_over(row, given) if row is not None else given

    @model_validator(mode="after")
    def _groups_can_teach(self) -> "RLRun":
        if self.advantage not in UNGROUPED and self.group_size < 2:
            raise ValueError(f"group_size is {self.group_size}, and a group of one has no baseline: use 2 or more")
        if self.group_size < 2 and self.dynamic_sampling is not None:
            raise ValueError("dynamic_sampling looks for rewards that differ, and in a group of one none do: drop it")
        versions = self.minibatches * self.epochs
        if self.max_staleness % versions:
            raise ValueError(
                f"max_staleness is {self.max_staleness}, and a batch makes {versions} policy versions: "
                "use a multiple of minibatches times epochs"
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

    @model_validator(mode="after")
    def _parts_belong_together(self) -> "RLRun":
        for wrong, mend in _mismatches(self):
            if wrong:
                raise ValueError(mend)
        return self


def _mismatches(run: RLRun) -> Iterator[tuple[bool, str]]:
    """Settings that need each other, each with what to do."""
    kl, region = run.loss.kl, run.trust_region
    yield (
        run.advantage == "gae" and run.critic is None,
        "advantage: gae is measured against a critic, and there is none: add critic: {}, or use preset: ppo",
    )
    yield (
        run.advantage != "gae" and run.critic is not None,
        f"only advantage: gae reads a critic, and advantage is {run.advantage}: use gae, or leave critic out",
    )
    yield run.loss.value is not None, "loss.value is made from the critic's settings: set critic.value instead"
    yield run.policy.head is not None, "policy.head is made from the critic's settings: set critic.place: head"
    yield (
        run.reference is not None and kl is None and (region is None or region.of == "sampler"),
        "reference is set, and nothing pulls to it: set loss.kl, or trust_region.of: reference",
    )
    control, episodes = run.kl_control, run.groups_per_step * run.group_size
    yield (
        # The largest relative change of one batch is a fifth of its share in the horizon.
        control is not None and control.kind == "proportional" and episodes >= 5 * control.horizon,
        f"kl_control.horizon is too short for steps of {episodes} episodes, of which one could end the penalty: "
        f"make it more than {episodes // 5}",
    )
    yield run.kl_control is not None and kl is None, "kl_control adapts loss.kl.coefficient, and there is no loss.kl"
    yield (
        region is not None and region.type != "hard" and region.of == "reference" and kl is not None,
        "trust_region.of: reference makes a KL penalty of its own: leave loss.kl out",
    )
    yield (
        region is not None and region.type == "hard" and (run.max_staleness > 0 or run.replay is not None),
        "trust_region: hard measures each update from the policy that drew the batch, which must then be the newest: "
        "use max_staleness: 0 and no replay",
    )
    yield (
        run.advantage == "none" and run.teacher is None and run.rehearsal is None,
        "advantage: none gives rewards no credit, so nothing is learned from: set a teacher, or another advantage",
    )
    yield (
        run.replay is not None and (run.advantage in {"gae", "batch_normalized"} or run.dynamic_sampling is not None),
        "replay learns from groups of earlier steps: use an advantage that compares groups, and no dynamic_sampling",
    )
    yield (
        run.correction is not None and run.replay is not None,
        "correction is of what was drawn for the step, and replay brings what was drawn long before: leave one out",
    )
    yield (
        run.planning is not None and run.advantage == "none",
        "planning raises the credit that rewards give, and advantage: none gives none: use another advantage",
    )
    yield (
        run.replay is not None and run.max_staleness > 0,
        "replay already learns from older policies: max_staleness must be 0",
    )
    yield from _mismatched_in_flight(run)
    yield from _mismatched_players(run)


def _mismatched_in_flight(run: RLRun) -> Iterator[tuple[bool, str]]:
    """The same of what becomes of replies at an update."""
    kept = run.in_flight.type != "finish"
    yield (
        kept and run.max_staleness == 0,
        f"in_flight is {run.in_flight.type}, and with max_staleness: 0 the policy is never updated while replies are "
        "drawn: raise it, or leave in_flight out",
    )
    yield (
        kept and bool(run.sampling.stop),
        f"in_flight: {run.in_flight.type} draws replies in pieces, and would not see a stop string across two of them: "
        "leave sampling.stop out",
    )


def _mismatched_players(run: RLRun) -> Iterator[tuple[bool, str]]:
    """The same of players that are trained for themselves."""
    own = {name: player for name, player in run.players.items() if isinstance(player, OwnPlayer)}
    specs = [player.policy for player in own.values() if player.policy is not None]
    yield (
        bool(own) and any(getattr(run, part) is not None for part in FOR_ONE_LEARNER),
        f"players.{', '.join(own)} is of type own, which learns by the loss alone: leave out "
        + ", ".join(FOR_ONE_LEARNER),
    )
    yield (
        any(spec.head is not None for spec in specs),
        "a player of type own has a policy with a head, and plays by its words alone: leave head out",
    )
    yield (
        any(isinstance(spec.model, TinyModel) for spec in specs),
        "a player of type own describes a tiny model of its own: leave its policy out, for what the run starts from",
    )
