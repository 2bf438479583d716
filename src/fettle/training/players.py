"""Who plays the players of games: the policy itself, a frozen model, the policy as it was, or one of their own."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from fettle.chat import Template
from fettle.config import FrozenPlayer, OwnPlayer, PastPlayer, PolicySpec, RLRun, SamplingParams
from fettle.engine import Engine, Policy, Sampler
from fettle.environments import GameSuite, Suite
from fettle.errors import ConfigError, did_you_mean
from fettle.rollouts import WON, Group, Seat
from fettle.training.session import Session
from fettle.types import Trajectory

POLICY = ""
"""The learner that is the run's policy; the others are called by the player that they play."""


class Players:
    """Everyone at the table. Players that a run does not name are the policy's."""

    def __init__(
        self,
        run: RLRun,
        policy: Policy,
        template: Template,
        *,
        engine: Engine,
        session: Session,
        templates: Mapping[str, Template],
    ) -> None:
        """``templates`` are of the other models that players name; one that is not there has the policy's."""
        self.own: dict[str, Policy] = {}
        """The policies of players that learn by themselves."""
        self._run, self._policy, self._template = run, policy, template
        self._engine, self._session, self._templates = engine, session, templates
        self._fixed: dict[str, Sampler] = {}
        self._past: dict[str, Sampler] = {}
        self._start: Sampler | None = None

    async def join(self, suites: Iterable[Suite | GameSuite]) -> None:
        """Bring everybody to the table, from where the session stands.

        Raises:
            ConfigError: no game has a player of a name that the run gives, or one leaves none to the policy.
        """
        games = [suite for suite in suites if isinstance(suite, GameSuite)]
        _check(self._run, games)
        if not games:
            return
        self._start = await self._engine.sampler(str(self._run.policy.model))
        for name, player in self._run.players.items():
            if isinstance(player, OwnPlayer):
                self.own[name] = await self._session.policy(
                    self._engine, own_spec(self._run, player), part=f"player-{name}"
                )
            elif isinstance(player, FrozenPlayer):
                self._fixed[name] = await self._engine.sampler(player.model) if player.model else self._start
        await self._recalled()

    def learner(self, player: str) -> str | None:
        """Who learns from what a player did; None where nobody does."""
        known = self._run.players.get(player)
        return POLICY if known is None else player if isinstance(known, OwnPlayer) else None

    def runs(self) -> dict[str, RLRun]:
        """The run as players see it that learn by themselves: with a policy and an optimizer of their own."""
        run = self._run
        return {
            name: run.model_copy(
                update={"policy": own_spec(run, player), "optimizer": player.optimizer or run.optimizer}
            )
            for name, player in run.players.items()
            if isinstance(player, OwnPlayer)
        }

    async def seats(self, sampler: Sampler, params: SamplingParams) -> dict[str, Seat]:
        """Everybody's seat but for the policy's own, and under the name ``POLICY`` that one; as they are now."""
        found = {POLICY: Seat(sampler, self._template, params)}
        for name, player in self._run.players.items():
            if isinstance(player, OwnPlayer):
                taken, model = await self.own[name].sampler(), str(own_spec(self._run, player).model)
            elif isinstance(player, PastPlayer):
                taken, model = self._past[name], None
            else:
                taken, model = self._fixed[name], player.model
            template = self._templates.get(model, self._template) if model is not None else self._template
            found[name] = _seat(taken, template, params)
        return found

    async def opponents(self, suites: Iterable[Suite | GameSuite], params: SamplingParams) -> dict[str, Seat]:
        """Whom the policy is measured against; see :func:`opponents`."""
        return await opponents(
            self._run,
            suites,
            engine=self._engine,
            template_of=lambda model: self._templates.get(model, self._template),
            params=params,
            start=str(self._run.policy.model),
        )

    async def moved_on(self, done: int) -> None:
        """``done`` steps are made: copies that are due are made anew, and outlive the checkpoints that need them."""
        due = [name for name, player in self._run.players.items() if _is_due(player, done) and name in self._past]
        if not due:
            return
        saved = await self._policy.save(_copy_name(done), optimizer=False)
        sampler = await self._engine.sampler(saved.path)
        for player in due:
            self._past[player] = sampler
        self._session.hold(self._needed(done))

    async def close(self) -> None:
        """Give back the policies that learned by themselves."""
        for policy in self.own.values():
            await policy.close()

    async def _recalled(self) -> None:
        """The copies that were played with where the session stands."""
        done, checkpoints = self._session.progress.step, self._session.folder.checkpoints
        for name, player in self._run.players.items():
            if isinstance(player, PastPlayer):
                copied = done // player.every * player.every
                weights = str(checkpoints / _copy_name(copied)) if copied else str(self._run.policy.model)
                self._past[name] = await self._engine.sampler(weights)

    def _needed(self, done: int) -> list[str]:
        """The copies that are played with after ``done`` steps."""
        ages = [player.every for player in self._run.players.values() if isinstance(player, PastPlayer)]
        return sorted({_copy_name(copied) for every in ages if (copied := done // every * every)})


def sides(run: RLRun, suite: GameSuite) -> list[str]:
    """The players of a game that the policy plays."""
    return [player for player in suite.players if player not in run.players]


async def opponents(
    run: RLRun,
    suites: Iterable[Suite | GameSuite],
    *,
    engine: Engine,
    template_of: Callable[[str], Template],
    params: SamplingParams,
    start: str | None,
) -> dict[str, Seat]:
    """Whom a policy is measured against, by player: frozen models, and in all other seats where the run started.

    They are the same at every evaluation. Where nothing tells where the run started, such players are left out.
    """
    return await seated(rivals_of(run, suites, start=start), engine=engine, template_of=template_of, params=params)


async def seated(
    rivals: Mapping[str, str], *, engine: Engine, template_of: Callable[[str], Template], params: SamplingParams
) -> dict[str, Seat]:
    """The seats of players whose weights are given."""
    return {name: _seat(await engine.sampler(model), template_of(model), params) for name, model in rivals.items()}


def rivals_of(run: RLRun, suites: Iterable[Suite | GameSuite], *, start: str | None) -> dict[str, str]:
    """The weights of those whom a policy is measured against; see :func:`opponents`."""
    found = {}
    games = [suite for suite in suites if isinstance(suite, GameSuite)]
    for player in dict.fromkeys(player for game in games for player in game.players):
        known, model = run.players.get(player), start
        if isinstance(known, FrozenPlayer):
            model = known.model or start
        elif isinstance(known, OwnPlayer) and known.policy is not None:
            model = str(known.policy.model)
        if model is not None:
            found[player] = model
    return found


def _seat(sampler: Sampler, template: Template, params: SamplingParams) -> Seat:
    ends = params.model_copy(update={"stop_token_ids": tuple(sorted(template.end_token_ids))})
    return Seat(sampler, template, ends)


def player_row(groups: Iterable[Group]) -> dict[str, float]:
    """Of each player of a step's games the mean reward and the win rate; nothing where none was played."""
    sides: dict[str, list[Trajectory]] = {}
    for trajectory in (trajectory for group in groups for trajectory in group.trajectories if trajectory.player):
        sides.setdefault(trajectory.player, []).append(trajectory)
    return {
        f"player/{player}/{name}": statistics.fmean(map(told, played))
        for player, played in sides.items()
        for name, told in (("reward", _reward), ("win_rate", won))
    }


def won(side: Trajectory) -> float:
    """What a side's game came to for it, as ``rollouts.match`` tells it."""
    return side.measured[WON]


def _reward(side: Trajectory) -> float:
    return side.reward


def own_spec(run: RLRun, player: OwnPlayer) -> PolicySpec:
    """What a player of its own trains."""
    return player.policy or run.policy


def of_player(name: str, row: Mapping[str, float]) -> dict[str, float]:
    """What a step did to the policy of a player, of all the metrics of that step."""
    area = "policy/"
    return {f"player/{name}/{key.removeprefix(area)}": row[key] for key in row if key.startswith(area)}


def _is_due(player: object, done: int) -> bool:
    return isinstance(player, PastPlayer) and done % player.every == 0


def _copy_name(done: int) -> str:
    return f"past-{done:06d}"


def _check(run: RLRun, games: Sequence[GameSuite]) -> None:
    known = list(dict.fromkeys(player for game in games for player in game.players))
    for name in run.players:
        if name not in known:
            there = f"they are {', '.join(known)}" if known else "there is no game among the environments"
            raise ConfigError(f"players.{name} names no player: {there}{did_you_mean(name, known)}")
    for game in games:
        if all(player in run.players for player in game.players):
            raise ConfigError(
                f"players names every player of {game.name}, so that the policy plays none: leave one out"
            )
