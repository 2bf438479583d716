"""The documented entrance to the routing policy: its names and signatures, over ``fettle.router``."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from fettle.advantages import batch_normalized, planning_credit
from fettle.config import CollaborationPreferences, load_as
from fettle.config.router import RLLM, LegacySimulator, RouterConfig
from fettle.errors import ConfigError, did_you_mean
from fettle.router.modes import MODES, CollaborationMode, CollaborationPolicy
from fettle.router.nouns import SIGNS, Doubles
from fettle.router.simulators import simulator_of
from fettle.router.training import Row, train
from fettle.types import Floats

Settings = TypeVar("Settings", bound="PPOParams | RewardWeights")


@dataclass(frozen=True, slots=True)
class PPOParams:
    """The ten settings of PPO, with the documented defaults of Python, whose batches are smaller than the file's."""

    rollout_length: int = 256
    mini_batch_size: int = 64
    update_epochs: int = 4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_coef: float = 0.2
    value_loss_coef: float = 0.5
    entropy_coef: float = 0.01
    learning_rate: float = 3e-4
    max_grad_norm: float = 1.0

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "PPOParams":
        """These settings, and the defaults of those that are missing.

        Raises:
            ConfigError: a name is not known, or it is no mapping.
        """
        return _from_dict(cls, given)


@dataclass(frozen=True, slots=True)
class RewardWeights:
    """What the terms of a reward are multiplied by; the last three count against it."""

    throughput: float = 1.0
    reliability: float = 0.5
    latency: float = 0.75
    collaboration_cost: float = 0.1
    violation: float = 1.0

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "RewardWeights":
        """These weights, and the defaults of those that are missing.

        Raises:
            ConfigError: a name is not known, or it is no mapping.
        """
        return _from_dict(cls, given)


def _from_dict(cls: type[Settings], given: Mapping[str, Any]) -> Settings:
    known = [field.name for field in fields(cls)]
    if not isinstance(given, Mapping):
        raise ConfigError(f"{cls.__name__} is made of {given!r}: it takes a mapping of {', '.join(known)}")
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{cls.__name__} has no {name!r}, only {', '.join(known)}{did_you_mean(str(name), known)}"
            )
    return cls(**given)


class RouterEnv:
    """The documented dynamics, one episode at a time. Simulated; working alone is best in every state of it."""

    def __init__(self, reward_weights: RewardWeights | None = None, *, seed: int = 0, episode_length: int = 64) -> None:
        """
        Raises:
            ConfigError: a setting cannot be what it is.
        """
        self._weights = reward_weights or RewardWeights()
        checked = load_as(RLLM, None, [*_given("reward_weights", self._weights), *_timing(seed, episode_length)])
        self._simulator = simulator_of(LegacySimulator())
        self._rng = np.random.default_rng(checked.trainer.seed)
        self._length = checked.trainer.episode_length
        self._state: dict[str, Any] = {}
        self._at = 0

    def reset(self) -> Floats:
        """The observation [4] that an episode begins with."""
        self._state, self._at = self._simulator.start(1, self._rng), 0
        return self._observation()

    def step(self, action: int) -> tuple[Floats, float, bool, dict[str, Any]]:
        """The next observation, the reward, whether the time is up, and ``metrics``, ``mode`` and ``step``.

        Raises:
            ConfigError: there is no such action, or no episode is under way.
        """
        if not self._state:
            raise ConfigError("no episode is under way: call reset() first")
        if not isinstance(action, int | np.integer) or not 0 <= action < len(MODES):
            raise ConfigError(f"action is {action!r}: it must be a whole number from 0 to {len(MODES) - 1}")
        self._state, terms = self._simulator.step(self._state, np.array([int(action)]), self._rng)
        self._at += 1
        metrics = {name: float(values[0]) for name, values in terms.items()}
        info = {"metrics": metrics, "mode": str(MODES[action]), "step": self._at, "simulated": True}
        observation, done = self._observation(), self._at == self._length
        if done:
            self._state = {}
        return observation, compute_reward(metrics, self._weights), done, info

    def _observation(self) -> Floats:
        found: Floats = self._simulator.observations(self._state)[0]
        return found


def compute_reward(metrics: Mapping[str, float], weights: RewardWeights) -> float:
    """The weighted sum; a missing term counts as 0, and ``violation_penalty`` is another name of ``violation``.

    Raises:
        ConfigError: a term is no number.
    """
    known = {**metrics, "violation": metrics.get("violation", metrics.get("violation_penalty", 0.0))}
    for name in SIGNS:
        if not isinstance(known.get(name, 0.0), int | float | np.number):
            raise ConfigError(f"the term {name} is {known[name]!r}: it must be a number")
    return float(sum(sign * getattr(weights, name) * known.get(name, 0.0) for name, sign in SIGNS.items()))


class RouterPPOAdapter:
    """PPO in the documented dynamics, one episode at a time, in memory: nothing is written."""

    def __init__(
        self,
        params: PPOParams | None = None,
        reward_weights: RewardWeights | None = None,
        *,
        seed: int = 0,
        episode_length: int = 64,
    ) -> None:
        """
        Raises:
            ConfigError: a setting cannot be what it is.
        """
        self._given = [
            *_given("ppo", params or PPOParams()),
            *_given("reward_weights", reward_weights or RewardWeights()),
            *_timing(seed, episode_length),
        ]
        load_as(RLLM, None, self._given)

    def train(self, num_updates: int) -> dict[str, Any]:
        """``history``, a row for each update, ``policy_state``, arrays by name, and that it is ``simulated``.

        Making this object and calling this is the opting in: no switch is asked for.

        Raises:
            ConfigError: ``num_updates`` is no number from 1 on.
        """
        history: list[Row] = []
        asked = f"trainer.updates={_plain(num_updates)!r}"
        rllm = load_as(RLLM, None, [*self._given, asked, *DOCUMENTED_TRAINING])
        trained = train(RouterConfig(rllm=rllm), told=history.append)
        return {"history": [dict(row) for row in history], "policy_state": trained.policy, "simulated": True}


DOCUMENTED_TRAINING = (
    *("enabled=true", "trainer.enabled=true", "trainer.parallel=1", "trainer.target_kl=null"),
    *("simulator.type=legacy", "breakers.enabled=false"),
)


def _given(place: str, settings: PPOParams | RewardWeights) -> list[str]:
    return [f"{place}.{name}={_plain(value)!r}" for name, value in asdict(settings).items()]


def _timing(seed: int, episode_length: int) -> list[str]:
    return [f"trainer.seed={_plain(seed)!r}", f"trainer.episode_length={_plain(episode_length)!r}"]


def _plain(value: Any) -> Any:
    """A number of numpy's as one of Python's, which settings are made of."""
    return value.item() if isinstance(value, np.generic) else value


def ppo_train(
    params: PPOParams, reward_weights: RewardWeights, num_updates: int, *, seed: int = 0, episode_length: int = 64
) -> dict[str, Any]:
    """What a ``RouterPPOAdapter`` of these trains."""
    return RouterPPOAdapter(params, reward_weights, seed=seed, episode_length=episode_length).train(num_updates)


Agent = TypeVar("Agent")


class Router:
    """Holds a list of agents to the rule of one mode."""

    def __init__(self, mode: CollaborationMode | str) -> None:
        """
        Raises:
            ConfigError: there is no such mode.
        """
        if mode not in MODES:
            raise ConfigError(f"there is no mode {mode!r}, only {', '.join(MODES)}{did_you_mean(str(mode), MODES)}")
        self.mode = CollaborationMode(mode)

    def route(self, agents: Sequence[Agent]) -> Sequence[Agent]:
        """The agents, if the mode can work with as many.

        Raises:
            ValueError: it cannot, as documented.
        """
        try:
            CollaborationPolicy.enforce(self.mode, len(agents))
        except ConfigError as error:
            raise ValueError(error.message) from error
        return agents


DEFAULT_COLLAB_PREFS: Mapping[str, Any] = MappingProxyType(CollaborationPreferences().model_dump())
"""The eight preferences with their documented defaults. ``fettle.router.routing.Router`` holds a request to them."""


def clamp_prefs(prefs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All eight preferences: what is missing as by default, and numbers brought to the nearest that can be.

    ``CollaborationPreferences(**clamp_prefs(...))`` is what a router takes.

    Raises:
        ConfigError: a name or a choice is not known, or a value is of another type.
    """
    if prefs is not None and not isinstance(prefs, Mapping):
        raise ConfigError(f"preferences are {prefs!r}: they are a mapping of {', '.join(DEFAULT_COLLAB_PREFS)}")
    forms = CollaborationPreferences.model_json_schema()["properties"]
    clamped = {name: _clamped(value, forms.get(name, {})) for name, value in (prefs or {}).items()}
    given = [f"{name}={_plain(value)!r}" for name, value in clamped.items()]
    return load_as(CollaborationPreferences, None, given).model_dump()


def _clamped(value: Any, form: Mapping[str, Any]) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return value
    raised = max(value, form.get("minimum", value))
    return min(raised, form.get("maximum", raised))


HICRA_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {"enabled": True, "planner_weight": 1.0, "normalize": False, "eps": 1e-8}
)
HICRA_ALIASES: Mapping[str, str] = MappingProxyType(
    {"multiplier": "planner_weight", "epsilon": "eps", "normalization_eps": "eps"}
)
Credit = Callable[..., Any]
"""``(rewards [..., T], mask=None)``: the credits, of the same shape."""


def build_hicra_from_dict(config: Mapping[str, Any]) -> Credit:
    """More credit to the steps that ``mask`` marks as planning: ``A + (planner_weight - 1) |A|`` (arXiv:2509.03646).

    Without a mask no step is, and switched off everything is as it was. ``normalize`` brings all rewards together to
    mean 0 and deviation 1, so that a good trajectory is still told from a bad one.

    Raises:
        ConfigError: a name is not known, or a value cannot be.
    """
    given = config.get("hicra", config) if isinstance(config, Mapping) else config
    if not isinstance(given, Mapping):
        raise ConfigError(f"hicra is {given!r}: it is a mapping of {', '.join(HICRA_DEFAULTS)}")
    settings = dict(HICRA_DEFAULTS)
    for name, value in given.items():
        known = HICRA_ALIASES.get(name, name)
        if known not in settings:
            raise ConfigError(f"hicra has no {name!r}, only {', '.join(settings)}{did_you_mean(str(name), settings)}")
        switch = isinstance(settings[known], bool)
        if switch != isinstance(value, bool) or not (
            switch or (isinstance(value, int | float) and 0 <= value < math.inf)
        ):
            raise ConfigError(f"hicra.{name} is {value!r}: it is {'true or false' if switch else 'a number from 0 on'}")
        settings[known] = value
    return _credit(settings) if settings["enabled"] else lambda rewards, mask=None: rewards


def _credit(settings: Mapping[str, Any]) -> Credit:
    def credit(rewards: ArrayLike, mask: ArrayLike | None = None) -> Floats:
        values = _numbers("rewards", rewards)
        planning = np.zeros(values.shape) if mask is None else _numbers("mask", mask)
        if planning.shape != values.shape:
            raise ConfigError(f"mask has shape {planning.shape} beside rewards of shape {values.shape}: mark each step")
        flat = values.ravel()
        if settings["normalize"] and flat.size:
            [normal] = batch_normalized([flat], [np.ones(flat.size, np.float32)])
            flat = normal * math.sqrt(flat.var() / (flat.var() + settings["eps"])) if flat.var() else normal
        marked = planning.ravel().astype(np.float32)
        return planning_credit(flat, marked, alpha=settings["planner_weight"] - 1).reshape(values.shape)

    return credit


def _numbers(name: str, given: ArrayLike) -> Doubles:
    try:
        return np.asarray(given, np.float64)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{name} are no numbers in rows of one length: {error}") from error


__all__ = [
    "DEFAULT_COLLAB_PREFS",
    "CollaborationMode",
    "CollaborationPolicy",
    "PPOParams",
    "RewardWeights",
    "Router",
    "RouterEnv",
    "RouterPPOAdapter",
    "build_hicra_from_dict",
    "clamp_prefs",
    "compute_reward",
    "ppo_train",
]
