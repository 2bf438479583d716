"""A router in use: for every request a mode, the agents of it, and why. It never raises and never waits long.

Where it cannot read a request the fixed mode is taken, as where a policy fails; where it cannot read the agents or the
preferences nobody is asked, for no cap could be held.

Caps come first, and are never exceeded; then the preferences; then the exposure says whether the policy is followed.
What the policy says comes from a simulator that it was trained in.
"""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fettle.config.routing import CollaborationPreferences, RoutingConfig
from fettle.errors import DataError, FettleError
from fettle.randomness import key
from fettle.router.amounts import amount
from fettle.router.decisions import Decision, DecisionLog, Source
from fettle.router.guard import Guard, UnansweredError
from fettle.router.loading import LOAD_S, Adviser
from fettle.router.modes import MODES, CollaborationMode
from fettle.router.opinions import Opinion
from fettle.router.teams import Agent, Teams, nearest, teams


@dataclass(frozen=True, slots=True)
class _Choice:
    """A mode, and how it came about."""

    mode: CollaborationMode
    source: Source
    why: str
    propensity: float = 1.0


@dataclass(frozen=True, slots=True)
class _Advice:
    """What the policy says, or why it says nothing."""

    opinion: Opinion | None = None
    silence: str | None = None
    failed: bool = False


class Router:
    """Holds nothing but a policy and a thread that asks it; at exposure ``fixed`` neither."""

    def __init__(self, config: RoutingConfig | None = None) -> None:
        """A policy that cannot be loaded is told in the log, and the fixed mode is taken."""
        self._config = config or RoutingConfig()
        self._log = DecisionLog(self._config.log)
        self._turn = threading.Lock()
        self._sources: Counter[Source] = Counter()
        self._guard = Guard(Adviser(self._config), time_limit_s=self._config.time_limit_s, retry_s=self._config.retry_s)
        if self._config.exposure != "fixed":
            self._advised(None, LOAD_S)

    @property
    def counts(self) -> Mapping[str, int]:
        """Decisions by who took them, ``alerts``, and ``lost``: lines of the log that are not written down."""
        return MappingProxyType({**self._sources, "alerts": self._guard.alerts, "lost": self._log.lost})

    def route(
        self,
        task: Mapping[str, float],
        agents: Sequence[Agent],
        *,
        request: str,
        preferences: CollaborationPreferences | None = None,
        confidence: float | None = None,
    ) -> Decision:
        """How the agents are to work on a task with these features; the first of them answers.

        The same ``request``, as text, is always on the same side of a canary. ``confidence`` is the first agent's in
        its own answer, where it has one.
        """
        wanted = self._config.preferences if preferences is None else preferences
        fixed, possible = _possible(agents, wanted)
        name, said = "", None
        try:
            name = str(request)
            advice = self._advice(task, wanted)
            said = advice.opinion
            choice = _by_preference(fixed, possible, wanted, confidence)
            choice = choice or self._by_exposure(fixed, possible, advice, name)
        except Exception as error:  # noqa: BLE001  a request that cannot be read still needs a mode
            choice = None if fixed is None else _Choice(fixed, "fallback", _unread("the request", error))
        decision = self._decision(name, possible, choice, said)
        with self._turn:
            self._sources[decision.source] += 1
        self._log.decided(decision)
        return decision

    def record(self, decision: Decision, *, reward: float) -> None:
        """Write down what a decision came to earn, so that ``fettle router replay`` can read it."""
        self._log.earned(decision, reward)

    def close(self) -> None:
        """Write down what still waits for it, for some seconds at most, and let go of the threads and the files."""
        self._guard.close()
        self._log.close()

    def _advice(self, task: Mapping[str, float], wanted: CollaborationPreferences) -> _Advice:
        if self._config.exposure == "fixed":
            return _Advice(silence="exposure is fixed")
        budget = min(1.0, wanted.budget_usd / self._config.full_budget_usd)
        deadline = min(1.0, wanted.p95_latency_s / self._config.full_deadline_s)
        # A copy, for whoever answers late must not read what the caller has changed by then.
        return self._advised({"budget": budget, "deadline": deadline, **task}, self._config.time_limit_s)

    def _advised(self, task: Mapping[str, float] | None, within_s: float) -> _Advice:
        try:
            found = self._guard.ask(task, within_s=within_s)
        except UnansweredError as error:
            return _Advice(silence=str(error), failed=True)
        return _Advice(found, None if found else "no policy is in use")

    def _by_exposure(
        self, fixed: CollaborationMode | None, possible: Teams, advice: _Advice, request: str
    ) -> _Choice | None:
        """The fixed mode, the policy's, or any, as the exposure and the request's side of the canary have it."""
        if fixed is None:
            return None
        if advice.opinion is None:
            return _Choice(fixed, "fallback" if advice.failed else "fixed", advice.silence or "")
        liked = max(possible.allowed, key=advice.opinion.probabilities.__getitem__)
        share = {"shadow": 0.0, "canary": self._config.canary_share}.get(self._config.exposure, 1.0)
        follows = _lot("canary", request) < share
        mode = liked if follows else fixed
        explored = _explored(possible, self._config.exploration, request)
        chosen = explored or mode
        odds = share * (chosen is liked) + (1 - share) * (chosen is fixed)
        exploration = self._config.exploration
        propensity = (1 - exploration) * odds + exploration / len(possible.allowed)
        if explored is not None:
            return _Choice(explored, "exploration", f"one of {exploration:g} of the requests that try any", propensity)
        return _Choice(mode, "policy" if follows else "fixed", self._why(follows, liked), propensity)

    def _why(self, follows: bool, liked: CollaborationMode) -> str:
        exposure = self._config.exposure
        if exposure == "full":
            return f"the policy's likeliest mode that fits is {liked}"
        if exposure == "shadow":
            return f"exposure is shadow, and the policy would take {liked}"
        side = "in" if follows else "outside of"
        return f"the request is {side} the canary of {self._config.canary_share:g}, and the policy would take {liked}"

    def _decision(self, request: str, possible: Teams, choice: _Choice | None, said: Opinion | None) -> Decision:
        exposure = self._config.exposure
        if choice is None:
            why = "no mode fits: " + "; ".join(f"{mode}: {reason}" for mode, reason in possible.ruled_out.items())
            return Decision(request, None, (), 0, 0.0, 0.0, "nothing", why, 1.0, possible.ruled_out, exposure, said)
        team = possible.allowed[choice.mode]
        return Decision(
            request,
            choice.mode,
            team.agents,
            team.rounds,
            team.usd,
            team.p95_s,
            choice.source,
            choice.why,
            choice.propensity,
            possible.ruled_out,
            exposure,
            said,
        )


def _possible(agents: Sequence[Agent], wanted: CollaborationPreferences) -> tuple[CollaborationMode | None, Teams]:
    """The fixed mode, or what comes in its place, and all that keeps within the caps."""
    try:
        possible = teams(tuple(agents), wanted)
        return nearest(CollaborationMode(wanted.mode), possible.allowed), possible
    except Exception as error:  # noqa: BLE001  where caps cannot be read nobody may be asked
        reason = _unread("what the request says of agents and preferences", error)
        return None, Teams(MappingProxyType({}), MappingProxyType(dict.fromkeys(MODES, reason)))


def _by_preference(
    fixed: CollaborationMode | None, possible: Teams, wanted: CollaborationPreferences, confidence: float | None
) -> _Choice | None:
    """What the preferences leave no choice about.

    Raises:
        DataError: the confidence is no number.
    """
    solo, least = CollaborationMode.SOLO, wanted.confidence_threshold
    if confidence is not None and wanted.answer_strategy == "self_if_confident" and solo in possible.allowed:
        confident = amount(confidence)
        if confident is None:
            raise DataError(f"the confidence is of type {type(confidence).__name__}: it must be a number from 0 to 1")
        if confident >= least:
            return _Choice(solo, "preference", f"confidence is {confident:g}, from {least:g} on")
    if not wanted.auto and fixed is not None:
        return _Choice(fixed, "preference", f"preferences.auto is false, and preferences.mode is {wanted.mode}")
    return None


def _unread(what: str, error: Exception) -> str:
    """Why something that a caller gave is of no use."""
    return error.message if isinstance(error, FettleError) else f"{what} cannot be read ({type(error).__name__})"


def _explored(possible: Teams, exploration: float, request: str) -> CollaborationMode | None:
    """Any mode that fits, for the share of the requests that try one."""
    if _lot("exploration", request) >= exploration:
        return None
    modes = list(possible.allowed)
    return modes[int(_lot("explored", request) * len(modes))]


def _lot(purpose: str, request: str) -> float:
    """A number in [0, 1) that is the request's own for this purpose."""
    return (key("router", purpose, ascii(request)) >> 10) / 2**53
