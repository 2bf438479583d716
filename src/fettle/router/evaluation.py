"""A policy on seeds that it was never trained on, beside every fixed mode, chance, two bandits and the oracle."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from fettle.config.router import RouterRewardWeights, SimulatorConfig
from fettle.errors import CheckpointError
from fettle.intervals import students_interval
from fettle.randomness import key
from fettle.router.bandits import LinearThompson, Thompson
from fettle.router.files import EVALUATION, FIGURE, SCHEMA
from fettle.router.modes import MODES, CollaborationMode
from fettle.router.nouns import Choices, Simulator, State
from fettle.router.policy import RouterPolicy
from fettle.router.simulators import reward, simulator_of
from fettle.tracking import write_atomically

Choose = Callable[[State, np.random.Generator], Choices]
"""A way to choose modes."""

HELD_OUT = "held out"
"""The name of the seeds that every policy is held to."""
BANDIT_EPISODES = 256
"""Episodes that a bandit plays at once."""
EVALUATED = ("policy_sha256", "simulator", "reward_weights", "episode_length")
"""What an evaluation keeps of the metadata of a policy: which file it was, and the world that it was held to."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Who chose, and the mean reward of a decision over held-out seeds with its 95 % interval."""

    name: str
    mean: float
    low: float
    high: float
    learned: bool = False
    """Whether it learned from what it earned, as the policy did."""
    means: tuple[float, ...] = ()
    """On each held-out seed."""


@dataclass(frozen=True, slots=True)
class Margin:
    """How much more a decision of the policy earns than a rival's in the same episodes, with its 95 % interval."""

    mean: float
    low: float
    """Above 0: the policy beats the rival."""
    high: float
    apart: bool
    """Whether their own intervals do not even overlap, which asks for more: it forgets that the episodes were the same.
    """


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everyone's standing. All of it is simulated."""

    policy: Standing
    others: tuple[Standing, ...]
    seeds: int
    episodes: int
    """On each seed."""
    decisions: int
    of: Mapping[str, Any]
    """``EVALUATED`` of the policy; no hash where it was never a file."""

    @property
    def best_constant(self) -> Standing:
        """The fixed mode with the greatest mean."""
        return max((each for each in self.others if each.name in MODES), key=lambda each: each.mean)

    @property
    def margins(self) -> dict[str, Margin]:
        """Over the best fixed mode and over each bandit, seed by seed."""
        return {each.name: _margin(self.policy, each) for each in self._rivals}

    @property
    def beaten(self) -> dict[str, bool]:
        """Of each of these: whether the margin's interval lies wholly above 0."""
        return {name: margin.low > 0 for name, margin in self.margins.items()}

    @property
    def worse_than_constant(self) -> bool:
        """Whether the margin over the best fixed mode lies wholly below 0."""
        return self.margins[self.best_constant.name].high < 0

    @property
    def _rivals(self) -> list[Standing]:
        return [self.best_constant, *(each for each in self.others if each.learned)]

    def as_json(self) -> dict[str, Any]:
        """For ``evaluation.json``."""
        margins = {name: asdict(margin) for name, margin in self.margins.items()}
        return {"schema_version": SCHEMA, "simulated": True, **asdict(self), "margins": margins, "beaten": self.beaten}


def _margin(own: Standing, rival: Standing) -> Margin:
    differences = [mine - its for mine, its in zip(own.means, rival.means, strict=True)]
    return Margin(*students_interval(differences), apart=own.low > rival.high or own.high < rival.low)


def evaluate(policy: RouterPolicy, *, seeds: int, episodes: int) -> Evaluation:
    """Play ``episodes`` on each of the held-out ``seeds``, in the simulator that the policy was trained in.

    The bandits first learn from as many decisions as the policy did; then all are held to what they know.

    Raises:
        CheckpointError: the policy was trained on other features than its simulator shows.
    """
    table = _table(policy.metadata, seeds=seeds, episodes=episodes)
    simulator, weights, length = table.simulator, table.weights, table.length
    others = [table.standing(mode, _constant(at)) for at, mode in enumerate(MODES)]
    others.append(table.standing("random", lambda state, rng: rng.integers(0, len(MODES), _count(state))))
    for name, bandit in (("thompson", Thompson()), ("linear thompson", LinearThompson(len(simulator.features)))):
        _taught(
            bandit,
            simulator,
            weights,
            decisions=int(policy.metadata["decisions"]),
            length=length,
            seed=int(policy.metadata["seed"]),
        )
        others.append(table.standing(name, _of_bandit(bandit, simulator), learned=True))
    if simulator.expected(simulator.start(1, np.random.default_rng(0))) is not None:
        others.append(table.standing("oracle", _oracle(simulator, weights)))
    own = table.standing("policy", _likeliest(policy, simulator), learned=True)
    of = {name: policy.metadata.get(name) for name in EVALUATED}
    return Evaluation(own, tuple(others), seeds, episodes, seeds * episodes * length, of)


def seed_means(
    who: RouterPolicy | CollaborationMode, world: Mapping[str, Any], *, seeds: int, episodes: int, name: str = HELD_OUT
) -> list[float]:
    """The mean reward of a decision on each of the seeds of that ``name``, in the ``world`` of a metadata.

    Raises:
        CheckpointError: the policy was trained on other features than the simulator shows.
    """
    table = _table(world, seeds=seeds, episodes=episodes, name=name)
    if isinstance(who, RouterPolicy):
        return table.means(_likeliest(who, table.simulator))
    return table.means(_constant(MODES.index(who)))


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """``evaluation.json`` beside the policy; a picture of what was said before goes.

    Raises:
        StorageError: it cannot be written.
    """
    write_atomically(folder / EVALUATION, json.dumps(evaluation.as_json(), indent=2) + "\n")
    (folder / FIGURE).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Table:
    simulator: Simulator
    weights: RouterRewardWeights
    seeds: int
    episodes: int
    length: int
    name: str

    def standing(self, name: str, choose: Choose, *, learned: bool = False) -> Standing:
        """On all held-out seeds."""
        means = tuple(self.means(choose))
        return Standing(name, *students_interval(means), learned=learned, means=means)

    def means(self, choose: Choose) -> list[float]:
        """On each held-out seed."""
        return [self._mean(choose, at) for at in range(self.seeds)]

    def _mean(self, choose: Choose, at: int) -> float:
        """Whoever chooses by chance has draws of their own, so that the episodes are everyone's."""
        rng = np.random.default_rng(key(self.name, "router", at))
        chance = np.random.default_rng(key(self.name, "router", at, "chance"))
        state, total = self.simulator.start(self.episodes, rng), 0.0
        for _ in range(self.length):
            state, terms = self.simulator.step(state, choose(state, chance), rng)
            total += float(reward(terms, self.weights).mean())
        return total / self.length


def _table(world: Mapping[str, Any], *, seeds: int, episodes: int, name: str = HELD_OUT) -> _Table:
    simulator = simulator_of(TypeAdapter(SimulatorConfig).validate_python(world["simulator"]))
    weights = RouterRewardWeights.model_validate(world["reward_weights"])
    return _Table(simulator, weights, seeds=seeds, episodes=episodes, length=int(world["episode_length"]), name=name)


def _likeliest(policy: RouterPolicy, simulator: Simulator) -> Choose:
    features = tuple(policy.metadata["features"])
    if features != simulator.features:
        raise CheckpointError(
            f"the policy was trained on {', '.join(features)}, and its simulator shows "
            f"{', '.join(simulator.features)}: train again with this release"
        )
    return lambda state, rng: policy.modes(simulator.observations(state))


def _constant(at: int) -> Choose:
    return lambda state, rng: np.full(_count(state), at)


def _oracle(simulator: Simulator, weights: RouterRewardWeights) -> Choose:
    def choose(state: State, rng: np.random.Generator) -> Choices:
        expected = simulator.expected(state)
        assert expected is not None
        return np.asarray(reward(expected, weights).argmax(-1))

    return choose


def _of_bandit(bandit: Thompson | LinearThompson, simulator: Simulator) -> Choose:
    return lambda state, rng: bandit.modes(simulator.observations(state), rng)


def _taught(
    bandit: Thompson | LinearThompson,
    simulator: Simulator,
    weights: RouterRewardWeights,
    *,
    decisions: int,
    length: int,
    seed: int,
) -> None:
    """Let a bandit play ``decisions`` decisions and learn from each."""
    rng = np.random.default_rng(key(seed, "router", "bandit"))
    state: State = {}
    for at in range(-(-decisions // BANDIT_EPISODES)):
        if at % length == 0:
            state = simulator.start(BANDIT_EPISODES, rng)
        observations = simulator.observations(state)
        modes = bandit.modes(observations, rng)
        state, terms = simulator.step(state, modes, rng)
        bandit.learn(observations, modes, reward(terms, weights))


def _count(state: State) -> int:
    """How many episodes are played at once."""
    return len(next(iter(state.values())))
