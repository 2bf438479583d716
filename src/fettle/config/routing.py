"""The settings of a router that uses a trained policy. As they stand, no policy is loaded and nothing is written."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fettle.config.base import Frozen

Seconds = Annotated[float, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Bound = Annotated[float, Field(ge=0)]
REGISTRY = "outputs/router-registry"
"""Where policies are promoted, where nothing else is said."""


class PromotionGate(Frozen):
    """What a policy has to show before a router may use it; whoever brings the policy has no say in it."""

    seeds: Annotated[int, Field(ge=2)] = 10
    """Held-out seeds that its evaluation must be of; the interval of a difference is over their means."""
    episodes: Annotated[int, Field(ge=1)] = 256
    """Episodes that it must have played on each."""


class CollaborationPreferences(Frozen):
    """What whoever asks wants of the agents. Every request may bring its own."""

    mode: Literal["solo", "consult", "collaborate", "consensus", "swarm"] = "consult"
    """The fixed mode: taken where no policy chooses, or where it cannot."""
    depth: Annotated[int, Field(ge=0, le=3)] = 1
    """How often a mode goes round; each time costs and takes as much again. 0 asks nobody else."""
    auto: bool = True
    """Whether a policy may choose at all; otherwise ``mode`` is taken."""
    ask_online: bool = True
    """Whether any agent but the first may be asked."""
    budget_usd: Bound = 0.50
    """A mode that would cost more is never taken."""
    p95_latency_s: Bound = 20.0
    """A mode whose 95th percentile would be later than this is never taken."""
    answer_strategy: Literal["self_if_confident", "as_routed"] = "self_if_confident"
    """Whether the first agent answers alone where it is confident, or as it is routed all the same."""
    confidence_threshold: Annotated[float, Field(ge=0, le=1)] = 0.70
    """From which confidence on the first agent answers alone."""


class RoutingLog(Frozen):
    """Two files with a JSON object a line."""

    enabled: bool = False
    """Write them."""
    decisions: str = "logs/router-decisions.jsonl"
    """Every decision with its explanation, as it is taken."""
    outcomes: str = "logs/router-outcomes.jsonl"
    """What decisions came to earn, in the form that ``fettle router replay`` reads."""


class RoutingConfig(Frozen):
    """A file of settings for a router in use."""

    exposure: Literal["fixed", "shadow", "canary", "full"] = "fixed"
    """``fixed`` loads no policy; in ``shadow`` one is asked, and the fixed mode taken; ``canary`` follows it for a
    share of the requests; ``full`` for all."""
    registry: Annotated[str, Field(min_length=1)] = REGISTRY
    """The folder of promoted policies; the one in use is taken, and changed while the router runs."""
    policy: str | None = None
    """A run's folder instead, which no gate has passed: for ``shadow`` alone."""
    canary_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of the requests that follow the policy; a request is always on the same side by its id."""
    exploration: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the requests that take any of the modes that fit, so that a log can be replayed for other policies."""
    preferences: CollaborationPreferences = CollaborationPreferences()
    """Of requests that bring none."""
    full_budget_usd: Positive = 1.0
    """What the feature ``budget`` of 1 stands for, where a request does not have that feature."""
    full_deadline_s: Positive = 40.0
    """What the feature ``deadline`` of 1 stands for, where a request does not have that feature."""
    time_limit_s: Seconds = 0.05
    """How long a policy may take; after that the fixed mode is taken."""
    retry_s: Seconds = 30.0
    """How long a policy that failed is left alone."""
    reload_s: Bound = 1.0
    """How often it is looked whether another policy is in use."""
    log: RoutingLog = RoutingLog()
    """What is written down."""

    @model_validator(mode="after")
    def _only_what_was_promoted_decides(self) -> "RoutingConfig":
        if self.policy is not None and self.exposure in ("canary", "full"):
            raise ValueError(
                f"policy is {self.policy}, which no gate has passed, and exposure {self.exposure} follows what it "
                "says: promote it and leave policy out, or set exposure to shadow"
            )
        return self
