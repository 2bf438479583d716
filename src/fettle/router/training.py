"""The loop that trains a routing policy: draw a rollout, learn from it, watch, write down."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fettle.config.router import CircuitBreakers, RouterConfig, switched_off
from fettle.errors import ConfigError, LossInputError
from fettle.randomness import key
from fettle.router.episodes import Episodes, Rollout
from fettle.router.heads import Scale, initial, unscaled
from fettle.router.learning import Learner, learn, learned, put_back
from fettle.router.modes import MODES
from fettle.router.nouns import DOCUMENTED_TERMS, World
from fettle.router.planning import successes, watched
from fettle.router.worlds import world_of
from fettle.types import Floats

Row = Mapping[str, float]
"""What there is to tell of one update."""

Note = Callable[[Row], None]
"""Adds numbers to a span."""


class Spans(Protocol):
    """Where it is told how long each part of a run took."""

    def __call__(self, name: str, update: int) -> AbstractContextManager[Note]:
        """A span of that name, open while the block runs."""
        ...


@contextmanager
def untraced(name: str, update: int) -> Iterator[Note]:
    """Satisfies ``Spans``, and tells nobody."""
    yield lambda numbers: None


class Keeper(Protocol):
    """Where a run is written down, if it is."""

    def resumed(self) -> Mapping[str, NDArray[Any]] | None:
        """The newest checkpoint, if the run is to go on from one. Nothing is written yet."""
        ...

    def begin(self) -> None:
        """Before the first update, and after all that can be refused was."""
        ...

    def row(self, row: Row, run: "Run") -> None:
        """After an update."""
        ...

    def end(self, trained: "Trained", run: "Run") -> None:
        """After the last one."""
        ...


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run came to."""

    policy: dict[str, Floats]
    """Tensors by name, as ``policy_state.npz`` holds them."""
    updates: int
    """Those that stand: none that a breaker undid."""
    stopped: str | None
    """The breaker that ended it, and the update that it undid."""


@dataclass(frozen=True, slots=True)
class Proven:
    """The learner that drew the last rollout with which nothing was wrong: what a breaker restores."""

    kept: Mapping[str, NDArray[Any]]
    scale: Scale
    update: int
    """How many updates it had learned from."""


class Run:
    """A run in progress: who learns, the episodes, and how far it has come."""

    def __init__(self, config: RouterConfig, world: World, spans: Spans = untraced) -> None:
        rllm = config.rllm
        rng = np.random.default_rng(key(rllm.trainer.seed, "router", "initial"))
        parameters = initial(rllm.policy, len(world.features), rng)
        self.config = config
        self.features = world.features
        self.count = world.count
        self.spans = spans
        self.learner = Learner.of(parameters, learning_rate=rllm.ppo.learning_rate)
        self.episodes = Episodes(world, rllm.reward_weights, length=rllm.trainer.episode_length)
        self.update = 0
        self.best_reward = -math.inf
        self.succeeded = 0
        self.proven = self.as_it_is()

    def as_it_is(self) -> Proven:
        """The learner, copied."""
        return Proven(learned(self.learner), self.learner.scale, self.update)

    def undo(self) -> None:
        """Go back to what is proven."""
        put_back(self.learner, self.proven.kept)
        self.learner.scale, self.update = self.proven.scale, self.proven.update

    def policy(self) -> dict[str, Floats]:
        """The tensors as they are now, with values in the reward's own units."""
        return unscaled(self.learner.parameters, self.learner.scale)

    def saved(self) -> dict[str, NDArray[Any]]:
        """All that :meth:`restore` needs to go on to the bit."""
        return {
            **_as_arrays("learner/", self.as_it_is()),
            **_as_arrays("proven/", self.proven),
            **{f"episodes/{name}": values for name, values in self.episodes.saved().items()},
            "best_reward": np.array(self.best_reward),
            "succeeded": np.array(self.succeeded),
        }

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what was saved."""
        self.proven = _of_arrays("learner/", saved)
        self.undo()
        self.proven = _of_arrays("proven/", saved)
        self.episodes.restore(below(saved, "episodes/"))
        self.best_reward, self.succeeded = float(saved["best_reward"]), int(saved["succeeded"])


def train(
    config: RouterConfig,
    keeper: Keeper | None = None,
    told: Callable[[Row], None] | None = None,
    spans: Spans = untraced,
) -> Trained:
    """Train for ``trainer.updates``, counted from the beginning, or until a breaker ends it.

    Raises:
        ConfigError: training is not switched on.
        FettleError: the rollout service is away, or ends while it is needed.
    """
    check(config)
    with closing(world_of(config.rllm, count=config.rllm.at_once)) as world:
        run = Run(config, world, spans)
        saved = keeper.resumed() if keeper is not None else None
        if saved is not None:
            run.restore(saved)
        if keeper is not None:
            keeper.begin()
        stopped = None
        while run.update < config.rllm.trainer.updates and stopped is None:
            row, stopped = _updated(run)
            if stopped is None:
                if told is not None:
                    told(row)
                if keeper is not None:
                    keeper.row(row, run)
        trained = Trained(run.policy(), run.update, stopped)
        if keeper is not None:
            keeper.end(trained, run)
    return trained


def check(config: RouterConfig) -> None:
    """Refuse to train where that is not switched on.

    Raises:
        ConfigError: see above.
    """
    off = switched_off(config)
    if off:
        raise ConfigError(f"training is switched off by {' and '.join(off)}: set them to true")


def _updated(run: Run) -> tuple[Row, str | None]:
    """One update; where a breaker breaks, the learner is as it was when it was last good, and it is told which is gone.

    A reward that collapses shows in the rollout after the update that was at fault: that one is undone.
    """
    breakers, number = run.config.rllm.breakers, run.update + 1
    with run.spans("rollout", number) as note:
        rollout = _drawn(run, number)
        mean = float(rollout.rewards.mean())
        note({"mean_reward": mean, "decisions": float(rollout.rewards.size)})
    reason = _collapse(rollout, run.best_reward, breakers)
    metrics: dict[str, float] = {}
    if reason is None:
        run.proven = run.as_it_is()
        with run.spans("update", number) as note:
            metrics, reason = _learned(run, rollout, number)
            note(metrics)
    if reason is not None:
        run.undo()
        return {}, f"update {run.update + 1} was undone: {reason}"
    run.update, run.best_reward = number, max(run.best_reward, mean)
    run.succeeded += successes(rollout)
    planning = watched(rollout, run.succeeded) if run.config.rllm.hicra.enabled else {}
    return {**_row(number, rollout, metrics), **planning}, None


def _drawn(run: Run, number: int) -> Rollout:
    rllm = run.config.rllm
    rng = np.random.default_rng(key(rllm.trainer.seed, "router", "rollout", number))
    return run.episodes.play(run.learner.parameters, run.learner.scale, rllm.ppo.rollout_length // run.count, rng)


def _learned(run: Run, rollout: Rollout, number: int) -> tuple[dict[str, float], str | None]:
    """What there is to tell of having learned from a rollout, and what is wrong with it."""
    rllm = run.config.rllm
    order = np.random.default_rng(key(rllm.trainer.seed, "router", "order", number))
    try:
        metrics = learn(run.learner, rollout, rllm, order)
    except LossInputError as error:
        return {}, error.message
    return metrics, _astray(metrics, rllm.breakers)


def _collapse(rollout: Rollout, best: float, breakers: CircuitBreakers) -> str | None:
    mean = float(rollout.rewards.mean())
    if breakers.enabled and mean < best - breakers.max_reward_drop * float(rollout.rewards.std()):
        return f"the mean reward after it fell to {mean:.3f} from {best:.3f}"
    return None


def _astray(metrics: Row, breakers: CircuitBreakers) -> str | None:
    if not all(math.isfinite(value) for value in metrics.values()):
        return "its numbers are not finite"
    if breakers.enabled and metrics["entropy"] < breakers.min_entropy:
        return f"entropy fell to {metrics['entropy']:.2g} nats"
    if breakers.enabled and metrics["approx_kl"] > breakers.max_kl:
        return f"the policy went {metrics['approx_kl']:.2g} nats from the one that drew the rollout"
    return None


def _row(number: int, rollout: Rollout, metrics: Row) -> Row:
    """The documented names first and in their order, then ours."""
    shares = np.bincount(rollout.modes.ravel(), minlength=len(MODES)) / rollout.modes.size
    documented = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_frac")
    return {
        "update": float(number),
        "mean_reward": float(rollout.rewards.mean()),
        "avg_episode_return": float(rollout.episode_returns.mean()),
        "avg_episode_length": rollout.episode_length,
        **{name: float(rollout.terms[term].mean()) for term, name in DOCUMENTED_TERMS.items()},
        **{name: metrics[name] for name in documented},
        **{name: value for name, value in metrics.items() if name not in documented},
        **{f"share_{mode}": float(share) for mode, share in zip(MODES, shares, strict=True)},
    }


def _as_arrays(prefix: str, proven: Proven) -> dict[str, NDArray[Any]]:
    scale = proven.scale
    return {
        **{f"{prefix}{name}": values for name, values in proven.kept.items()},
        f"{prefix}scale": np.array([scale.total, scale.squares, scale.weight]),
        f"{prefix}update": np.array(proven.update),
    }


def _of_arrays(prefix: str, saved: Mapping[str, NDArray[Any]]) -> Proven:
    kept = below(saved, prefix)
    scale, update = kept.pop("scale"), kept.pop("update")
    return Proven(kept, Scale(*scale.tolist()), int(update))


def below(saved: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """Those whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): values for name, values in saved.items() if name.startswith(prefix)}
