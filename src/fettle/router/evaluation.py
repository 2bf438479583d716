"""A policy on seeds that it was never trained on, beside every fixed mode, chance, two bandits and the oracle."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from fettle.config.router import RouterRewardWeights, SimulatorConfig
from fettle.randomness import key
from fettle.router.bandits import LinearThompson, Thompson
from fettle.router.files import EVALUATION, SCHEMA
from fettle.router.modes import MODES, CollaborationMode
from fettle.router.nouns import Choices, Simulator, State
from fettle.router.policy import RouterPolicy
from fettle.router.simulators import reward, simulator_of
from fettle.tracking import write_atomically

Choose = Callable[[State, np.random.Generator], Choices]
"""A way to choose modes."""

BANDIT_EPISODES = 256
"""Episodes that a bandit plays at once."""
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
T_975_REST = 2.131
EVALUATED = ("policy_sha256", "simulator", "reward_weights", "episode_length")
"""What an evaluation keeps of the metadata of a policy: which file it was, and the world that it was held to."""
"""Student's t at 97.5 %, by degrees of freedom from 1; beyond the table its last, which is a little too wide."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Who chose, and the mean reward of a decision over held-out seeds with its 95 % interval."""

    name: str
    mean: float
    low: float
    high: float
    learned: bool = False
    """Whether it learned from what it earned, as the policy did."""


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
    def beaten(self) -> dict[str, bool]:
        """Of the best fixed mode and the bandits: whether the policy's interval lies wholly above theirs."""
        rivals = [self.best_constant, *(each for each in self.others if each.learned)]
        return {each.name: self.policy.low > each.high for each in rivals}

    @property
    def worse_than_constant(self) -> bool:
        """Whether the policy's interval lies wholly below that of the best fixed mode."""
        return self.policy.high < self.best_constant.low

    def as_json(self) -> dict[str, Any]:
        """For ``evaluation.json``."""
        return {"schema_version": SCHEMA, "simulated": True, **asdict(self), "beaten": self.beaten}


def evaluate(policy: RouterPolicy, *, seeds: int, episodes: int) -> Evaluation:
    """Play ``episodes`` on each of the held-out ``seeds``, in the simulator that the policy was trained in.

    The bandits first learn from as many decisions as the policy did; then all are held to what they know.
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
    who: RouterPolicy | CollaborationMode, world: Mapping[str, Any], *, seeds: int, episodes: int, first: int = 0
) -> list[float]:
    """The mean reward of a decision on each held-out seed from ``first`` on, in the ``world`` of a metadata."""
    table = _table(world, seeds=seeds, episodes=episodes, first=first)
    if isinstance(who, RouterPolicy):
        return table.means(_likeliest(who, table.simulator))
    return table.means(_constant(MODES.index(who)))


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """``evaluation.json`` beside the policy.

    Raises:
        StorageError: it cannot be written.
    """
    write_atomically(folder / EVALUATION, json.dumps(evaluation.as_json(), indent=2) + "\n")


def interval(means: Sequence[float]) -> tuple[float, float, float]:
    """The mean of what each seed came to, and Student's 95 % interval around it."""
    freedom = len(means) - 1
    t = T_975[freedom - 1] if freedom <= len(T_975) else T_975_REST
    mean, half = float(np.mean(means)), t * float(np.std(means, ddof=1)) / math.sqrt(len(means))
    return mean, mean - half, mean + half


@dataclass(frozen=True, slots=True)
class _Table:
    simulator: Simulator
    weights: RouterRewardWeights
    seeds: int
    episodes: int
    length: int
    first: int

    def standing(self, name: str, choose: Choose, *, learned: bool = False) -> Standing:
        """On all held-out seeds."""
        return Standing(name, *interval(self.means(choose)), learned=learned)

    def means(self, choose: Choose) -> list[float]:
        """On each held-out seed."""
        numbers = range(self.first, self.first + self.seeds)
        return [self._mean(choose, np.random.default_rng(key("held out", "router", at))) for at in numbers]

    def _mean(self, choose: Choose, rng: np.random.Generator) -> float:
        state, total = self.simulator.start(self.episodes, rng), 0.0
        for _ in range(self.length):
            state, terms = self.simulator.step(state, choose(state, rng), rng)
            total += float(reward(terms, self.weights).mean())
        return total / self.length


def _table(world: Mapping[str, Any], *, seeds: int, episodes: int, first: int = 0) -> _Table:
    simulator = simulator_of(TypeAdapter(SimulatorConfig).validate_python(world["simulator"]))
    weights = RouterRewardWeights.model_validate(world["reward_weights"])
    return _Table(simulator, weights, seeds=seeds, episodes=episodes, length=int(world["episode_length"]), first=first)


def _likeliest(policy: RouterPolicy, simulator: Simulator) -> Choose:
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
