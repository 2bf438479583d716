"""The nouns that cross a boundary: plain data over numpy arrays, no torch, no I/O.

Axes: T tokens of one sequence. Every per-token array stands beside the token it speaks of:
``sampling_logprobs[t]`` is the log-probability with which ``tokens[t]`` was drawn.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fettle.errors import DataError, LossInputError

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Tokens = Sequence[int]

MOST_TOKEN = 2**31 - 1
"""What an id can be at most, whatever the vocabulary."""

LOGPROB_ROUNDING = 1e-4
"""How far above 0 arithmetic may put the logarithm of a probability near 1."""

Ending = Literal["", "turns", "tokens", "context", "seconds", "environment"]
"""Which limit cut an episode short: turns, tokens that the policy drew, the model's context, seconds, or one of the
environment's own. None for an episode that came to its end."""

StopReason = Literal["stop", "length"]
"""``stop``: a stop token or stop string was drawn; ``length``: the token limit or the context ended it."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool, as the assistant made it."""

    id: str
    name: str
    """Empty where it was meant as a call and is none."""
    arguments: str
    """JSON, as it was written; where it is no call, all that was."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model is told of it."""

    name: str
    description: str
    schema: str
    """JSON: the JSON schema of its arguments, an object."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, as chat templates take it."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """What the assistant calls; ``content`` is then what it says besides."""
    tool_call_id: str = ""
    """Which call a tool's message answers."""


@dataclass(frozen=True, slots=True, eq=False)
class Datum:
    """One sequence ready for a loss.

    ``loss_mask[t]`` is 1 where ``tokens[t]`` is trained on; the first token has nothing before it to
    be predicted from, so its mask is 0. ``streams`` holds further per-token arrays by name
    (``weights``, ``sampling_logprobs``, ``advantages``, ``reference_logprobs``): a loss says which it
    reads. ``weights`` carries every division (see ``losses.reduce``) and is ``loss_mask`` when absent.

    Raises:
        LossInputError: an array's length is not the number of tokens.
    """

    tokens: Ints
    loss_mask: Floats
    streams: Mapping[str, Floats] = field(default_factory=dict)
    temperature: float = 1.0
    """The temperature at which this sequence was drawn, and at which its log-probabilities are taken."""
    group: str = ""
    """Sequences that answer one prompt, or that form one pair, share a group."""
    scalars: Mapping[str, float] = field(default_factory=dict)
    """One number a sequence, by name. ``weight``: what the loss of the sequence, or of its pair, is multiplied by;
    ``preferred``: 1 for a pair's chosen (or a good reply), 0 for the rejected (or a bad one)."""
    targets: Ints | None = None
    """[T]: at each place the token whose log-probability is taken after ``tokens[:t]``; absent, ``tokens`` itself."""

    def __post_init__(self) -> None:
        if self.tokens.ndim != 1 or self.tokens.dtype.kind not in "iu":
            what = f"shape {list(self.tokens.shape)} and type {self.tokens.dtype}"
            raise LossInputError(f"tokens have {what}: one row of whole numbers is needed")
        if not self.temperature > 0:
            raise LossInputError(f"temperature is {self.temperature}: a datum's must be above 0")
        length = len(self.tokens)
        if length < 2:
            raise LossInputError(f"a sequence needs at least 2 tokens to train on, and this one has {length}")
        self._check_finite_scalars()
        if self.targets is not None and (self.targets.shape != (length,) or self.targets.dtype.kind not in "iu"):
            what = f"shape {list(self.targets.shape)} and type {self.targets.dtype}"
            raise LossInputError(f"targets have {what} beside {length} tokens: one whole number a token is needed")
        for name, values in {"loss_mask": self.loss_mask, **self.streams}.items():
            if values.shape != (length,):
                raise LossInputError(
                    f"{name} has shape {list(values.shape)} beside {length} tokens: one value a token is needed"
                )
            if np.count_nonzero(np.isfinite(values)) < length:
                at = int(np.flatnonzero(~np.isfinite(values))[0])
                raise LossInputError(f"{name}[{at}] is {values[at]}: every value must be a finite number")
        if np.count_nonzero(self.loss_mask == 1) < np.count_nonzero(self.loss_mask):
            raise LossInputError("loss_mask holds other numbers than 0 and 1: put those into a stream named weights")
        if self.loss_mask[0] != 0:
            raise LossInputError(
                "loss_mask[0] is not 0, but the first token has nothing before it to be predicted from"
            )

    @classmethod
    def checked_before(cls, *values: Any) -> "Datum":
        """One of a batch that was looked at as a whole; ``values`` are the fields in their order."""
        made = object.__new__(cls)
        for name, value in zip(cls.__slots__, values, strict=True):
            object.__setattr__(made, name, value)
        return made

    def _check_finite_scalars(self) -> None:
        for name, value in self.scalars.items():
            if not math.isfinite(value):
                raise LossInputError(f"{name} is {value}: it must be a finite number")

    @property
    def weights(self) -> Floats:
        """What each token's loss is multiplied by before everything is summed."""
        return self.streams.get("weights", self.loss_mask)


def ids_of(name: str, values: NDArray[Any]) -> Ints:
    """Whole numbers as ids of tokens.

    Raises:
        LossInputError: one is below 0, or beyond what an id can be.
    """
    if values.size and not (values.min() >= 0 and values.max() <= MOST_TOKEN):
        raise LossInputError(f"{name} go from {values.min()} to {values.max()}: ids are 0 to {MOST_TOKEN}")
    return values.astype(np.int32)


def datum(
    tokens: Sequence[int],
    loss_mask: Sequence[float],
    *,
    temperature: float = 1.0,
    group: str = "",
    scalars: Mapping[str, float] | None = None,
    **streams: Sequence[float] | Floats,
) -> Datum:
    """A :class:`Datum` from plain lists.

    Raises:
        LossInputError: a token is below 0 or beyond what an id can be; and see :class:`Datum`.
    """
    arrays = {name: np.asarray(values, dtype=np.float32) for name, values in streams.items()}
    ids = np.asarray(tokens)
    ids = ids_of("tokens", ids) if ids.dtype.kind in "iu" or not ids.size else ids
    return Datum(ids, np.asarray(loss_mask, dtype=np.float32), arrays, temperature, group, scalars or {})


@dataclass(frozen=True, slots=True, eq=False)
class ForwardResult:
    """What a loss came to: ``loss`` is the weighted sum, ``metrics`` means over what the loss speaks of.

    That is each trained token, each sequence or each pair. A metric named ``*_max`` is the greatest, and ``*_min`` the
    least of them.
    """

    loss: float
    metrics: dict[str, float]
    logprobs: list[Floats]
    """For each datum [T]: log-probabilities under the policy, 0 where ``loss_mask`` is 0."""
    num_tokens: int
    """Trained tokens in the call."""
    values: list[Floats] = field(default_factory=list)
    """For each datum [T], where a value head was read: the worth of what stands before each trained token."""
    scores: list[float] = field(default_factory=list)
    """For each datum, where a reward head was read: its score."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Where the time of the call went: ``forward`` and, with a gradient, ``backward``."""


@dataclass(frozen=True, slots=True)
class OptimResult:
    """One optimizer step: ``skipped`` steps (non-finite gradients) leave the weights as they were."""

    policy_version: int
    grad_norm: float
    """Global norm before clipping."""
    skipped: bool = False
    seconds: float = 0.0


class Span(NamedTuple):
    """Tokens of a completion, from ``start`` up to ``end``, and the policy version that drew them."""

    start: int
    end: int
    policy_version: int


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """What a sampler drew, with the log-probability of each token under the distribution it came from."""

    tokens: list[int]
    logprobs: list[float]
    stop_reason: StopReason
    policy_version: int
    """The oldest that drew a token here."""
    untempered_logprobs: list[float] | None = None
    """Under the model's own distribution, before temperature, top-k and top-p; on request."""
    top: list[list[tuple[int, float]]] | None = None
    """At each token the likeliest ones with their log-probabilities under the model's own distribution, likeliest
    first; on request."""
    spans: tuple[Span, ...] = ()
    """Which version drew which tokens, from the first to the last; all of them one version's where nothing is said."""

    def __post_init__(self) -> None:
        if not self.spans:
            object.__setattr__(self, "spans", (Span(0, len(self.tokens), self.policy_version),))


@dataclass(frozen=True, slots=True, eq=False)
class PromptReading:
    """What a model says at each place of a given sequence, of what stands before it; temperature 1."""

    logprobs: Floats
    """[T] of the tokens themselves; NaN for the first."""
    top_tokens: Ints
    """[T, k], likeliest first; 0 for the first place."""
    top_logprobs: Floats
    """[T, k]; NaN for the first place."""
    target_logprobs: Floats
    """[T, K] of the tokens asked about; 0 where nothing was asked."""
    drawn_tokens: Ints
    """[T, d] drawn at each place; 0 for the first."""
    drawn_logprobs: Floats
    """[T, d] of what was drawn; NaN for the first place."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved policy: a folder and the digest of its manifest."""

    name: str
    path: str
    policy_version: int
    digest: str


@dataclass(frozen=True, slots=True)
class Task:
    """Something to be solved. ``data`` (the answer and its kin) never reaches the policy."""

    prompt: tuple[Message, ...]
    data: Mapping[str, Any]
    source: str
    """The environment it belongs to."""

    @property
    def id(self) -> str:
        """A hash of the content: two tasks that ask and expect the same are the same task."""
        content = [[_content(message) for message in self.prompt], self.data.get("answer")]
        try:
            text = json.dumps(content, sort_keys=True)
        except TypeError as error:
            raise DataError(f"a task of {self.source} holds an answer that is not JSON: {error}") from error
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content(message: Message) -> tuple[str, ...]:
    """What a message says, for a hash."""
    calls = (part for call in message.tool_calls for part in (call.id, call.name, call.arguments))
    return (message.role, message.content, *calls)


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """What the policy saw (new tokens only), what it then drew, and what that earned."""

    observation: list[int]
    completion: Completion
    reward: float


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One episode, token-in and token-out: nothing here was ever re-tokenised.

    ``terminated``: the environment said it is over. ``truncated``: a limit cut it short.
    """

    task: Task
    turns: tuple[Turn, ...]
    messages: tuple[Message, ...]
    """The whole conversation, for people to read."""
    terminated: bool
    truncated: bool
    components: Mapping[str, float] = field(default_factory=dict)
    """The named parts whose sum is the reward."""
    temperature: float = 1.0
    group: str = ""
    measured: Mapping[str, float] = field(default_factory=dict)
    """Numbers by name that are told, and are no part of the reward."""
    ending: Ending = ""
    """The limit that cut it short."""
    player: str = ""
    """Whose side of a game it is; empty where there is one player only."""

    @property
    def reward(self) -> float:
        """The sum over turns."""
        return sum(turn.reward for turn in self.turns)

    @property
    def tokens(self) -> list[int]:
        """The whole conversation."""
        return [token for turn in self.turns for token in (*turn.observation, *turn.completion.tokens)]

    @property
    def num_sampled(self) -> int:
        """Tokens that the policy drew."""
        return sum(len(turn.completion.tokens) for turn in self.turns)

    @property
    def policy_version(self) -> int:
        """The oldest policy version that drew a token here."""
        return min(turn.completion.policy_version for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Failed:
    """An episode that broke: counted, and never a reward of zero."""

    task: Task
    reason: str
    group: str = ""
