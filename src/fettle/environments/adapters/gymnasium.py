"""Gymnasium environments whose observations can be read and whose actions can be said."""

import importlib
import json
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from random import Random
from typing import Any, TypeVar

import gymnasium
from gymnasium import spaces
from gymnasium.envs import registration
from gymnasium.utils.colorize import color2num

from fettle.config import Gymnasium
from fettle.environments.adapters.worlds import IllegalAction, Moved, Rules, WorldEnvironment
from fettle.environments.base import Environment, Suite
from fettle.environments.generated import GeneratedTasks
from fettle.environments.scoring import ScoringThread
from fettle.errors import ConfigError, EnvironmentFault, did_you_mean
from fettle.types import Task

T = TypeVar("T")

COLOURED = re.compile(r"\x1b\[([0-9;]+)m([^\x1b]*)\x1b\[0m")
COLOURS = {number + ground: name for name, number in color2num.items() for ground in (0, 10)}
SEEDS = 2**31
NAMED = 30
"""Actions that are listed in the first message; of more, the first and the last are named."""


def suite(config: Gymnasium) -> Suite:
    """The episodes of an environment, each with a seed.

    Raises:
        ConfigError: there is no such environment, it cannot be made with these settings, it cannot be read or acted
            on in words, or its beginnings do not follow its seeds, or are too few to hold some out.
    """
    return GymnasiumSuite(config)


class GymnasiumSuite:
    """Satisfies ``Suite``."""

    def __init__(self, config: Gymnasium) -> None:
        self.name = config.environment
        self._config = config
        self._probe = _made(config)
        self._actions = _actions(config, self._probe.action_space)
        self._rules = Rules(
            system=config.system,
            instructions=config.instructions,
            asks=_asks(config, self._actions),
            in_tags=config.answer_in == "tags",
            turns=config.turns,
            illegal_cost=config.illegal_cost,
        )
        self._thread = ScoringThread()
        with closing(_made(config)) as other:
            alike = _begun(self._probe, 1) == _begun(other, 1)
        if not alike:
            raise ConfigError(
                f"{self.name} begins in two ways with one seed, so no run could be repeated: let reset(seed) decide it"
            )
        self._tasks = GeneratedTasks(self.name, self._drawn, seed=config.seed, heldout=config.heldout)

    def training_task(self, index: int) -> Task:
        """The first draw of ``index`` that is not held out."""
        return self._tasks.training_task(index)

    def heldout_tasks(self) -> Sequence[Task]:
        """The beginnings kept for evaluation."""
        return self._tasks.heldout_tasks()

    def environment(self) -> Environment:
        """A new environment, for one episode."""
        return WorldEnvironment(GymnasiumWorld(self._config, self._actions, self._thread), self._rules)

    def _drawn(self, rng: Random) -> Task:
        seed = rng.randrange(SEEDS)
        return self._rules.task(self.name, seed, _begun(self._probe, seed))


class GymnasiumWorld:
    """Satisfies ``World``. All worlds of a suite are at work on one thread, one call after another."""

    def __init__(self, config: Gymnasium, actions: Sequence[str], thread: ScoringThread) -> None:
        """``actions`` are the names of the discrete ones; none where an action is a text."""
        self._config = config
        self._actions = actions
        self._thread = thread
        self._made: Any = None

    async def begin(self, seed: int) -> str:
        """Make it, and reset it with ``seed``."""

        def begun() -> str:
            self._made = _made(self._config)
            return _begun(self._made, seed)

        return await self._run(begun)

    async def act(self, action: str) -> Moved:
        """Step it.

        Raises:
            IllegalAction: there is no such action.
            EnvironmentFault: it failed.
        """
        chosen = self._chosen(action)

        def moved() -> Moved:
            observation, reward, terminated, truncated, _ = self._made.step(chosen)
            return Moved(_shown(self._made, observation), float(reward), bool(terminated), bool(truncated))

        return await self._run(moved)

    async def close(self) -> None:
        """Close it."""
        made, self._made = self._made, None
        if made is not None:
            await self._run(made.close)

    def _chosen(self, action: str) -> int | str:
        if not self._actions:
            if action in self._made.action_space:
                return action
            raise IllegalAction(f"{action!r} is no action here: {self._made.action_space} is what an action may be.")
        said = action.strip().casefold()
        for index, name in enumerate(self._actions):
            if said == name.casefold():
                return int(self._made.action_space.start) + index
        raise IllegalAction(f"{action.strip()[:60]!r} is no action: say one of {_listed(self._actions)}.")

    async def _run(self, call: Callable[[], T]) -> T:
        """The call's answer, from the thread; whatever it raises is a fault of the environment."""

        def answered() -> T:
            try:
                return call()
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                raise EnvironmentFault(f"{self._config.environment} of Gymnasium failed ({why})") from error

        return await self._thread.run(answered)


def _made(config: Gymnasium) -> Any:
    name = config.environment
    try:
        module, colon, known = name.rpartition(":")
        if colon:
            importlib.import_module(module)
        modes = _render_modes(gymnasium.spec(known))
        given: dict[str, Any] = {"render_mode": "ansi"} if "ansi" in modes else {}
        return gymnasium.make(known, disable_env_checker=True, **given, **dict[str, Any](config.settings))
    except ModuleNotFoundError as error:
        raise ConfigError(f"{name} needs the module {error.name}, which is not there: is it on PYTHONPATH?") from error
    except gymnasium.error.UnregisteredEnv as error:
        near = did_you_mean(name, gymnasium.registry)
        raise ConfigError(f"Gymnasium has no environment {name!r}{near}") from error
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{name} cannot be made with settings {dict(config.settings)} ({why})") from error


def _render_modes(spec: Any) -> Sequence[str]:
    made = spec.entry_point
    creator = made if callable(made) else registration.load_env_creator(made)
    return tuple(getattr(creator, "metadata", {}).get("render_modes", ()))


def _begun(made: Any, seed: int) -> str:
    observation, _ = made.reset(seed=seed)
    return _shown(made, observation)


def _shown(made: Any, observation: Any) -> str:
    """A text as it is; a picture made of text, with its colours in words; numbers as JSON."""
    if isinstance(made.observation_space, spaces.Text):
        return str(observation)
    if made.render_mode == "ansi":
        return _in_words(str(made.render()))
    return json.dumps(_plain(made, observation))


def _plain(made: Any, observation: Any) -> Any:
    def plain(space: Any, value: Any) -> Any:
        if isinstance(space, spaces.Discrete):
            return int(value)
        if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
            return value.tolist()
        if isinstance(space, spaces.Tuple):
            return [plain(part, item) for part, item in zip(space.spaces, value, strict=True)]
        if isinstance(space, spaces.Dict):
            return {name: plain(part, value[name]) for name, part in space.spaces.items()}
        if isinstance(space, spaces.Text):
            return str(value)
        raise ConfigError(
            f"{made.spec.id} is seen as {space}, which no words say: use an environment with texts, whole numbers or an"
            " ansi rendering"
        )

    return plain(made.observation_space, observation)


def _in_words(text: str) -> str:
    r"""
    >>> _in_words("|\x1b[43m\x1b[34;1mY\x1b[0m\x1b[0m: |")
    '|(yellow (blue Y)): |'
    """

    def named(match: re.Match[str]) -> str:
        names = [COLOURS[int(code)] for code in match[1].split(";") if int(code) in COLOURS]
        return f"({' '.join([*names, match[2]])})"

    while (plainer := COLOURED.sub(named, text)) != text:
        text = plainer
    return text.rstrip()


def _actions(config: Gymnasium, space: Any) -> tuple[str, ...]:
    if isinstance(space, spaces.Text):
        if config.actions:
            raise ConfigError(f"actions names {len(config.actions)}, and actions of {config.environment} are texts")
        return ()
    if not isinstance(space, spaces.Discrete):
        raise ConfigError(
            f"{config.environment} is acted on by {space}, which no words say: use an environment whose actions are"
            " Discrete or Text"
        )
    if not config.actions:
        return tuple(str(int(space.start) + index) for index in range(int(space.n)))
    if len({name.casefold() for name in config.actions}) != int(space.n):
        raise ConfigError(
            f"actions names {', '.join(config.actions)}, and {config.environment} has {space.n} of them, all different"
        )
    return config.actions


def _asks(config: Gymnasium, actions: Sequence[str]) -> str:
    how = "as <answer>...</answer>" if config.answer_in == "tags" else "and nothing else"
    return f"Say what you do, {how}" + (f": one of {_listed(actions)}." if actions else ".")


def _listed(actions: Sequence[str]) -> str:
    return ", ".join(actions) if len(actions) <= NAMED else f"{actions[0]} to {actions[-1]}"
