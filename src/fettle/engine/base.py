"""The seam. Everything above it is written once; everything below it can be swapped.

``Engine``, ``Policy`` and ``Sampler`` are what loops speak to. ``Backend`` is the synchronous half: the same
operations, one at a time and in order, with no queue and no network; ``broker`` makes an ``Engine`` of any.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from fettle.config import AdamW, LossConfig, PolicySpec, SamplingParams
from fettle.types import (
    Checkpoint,
    Completion,
    Datum,
    Floats,
    ForwardResult,
    Ints,
    OptimResult,
    PromptReading,
    Tokens,
)

Watch = Callable[[int, int, float], bool]
"""Told of each token as it is drawn: whose completion it is (its index), the token, its log-probability.

Called from the thread that draws, or from one that hears of it soon after; once it returns False the drawing of the
request is ended."""


@dataclass(frozen=True, slots=True)
class Until:
    """A ``Watch`` that asks for no token: it has enough once it is over."""

    over: Callable[[], bool]

    def __call__(self, index: int, token: int, logprob: float) -> bool:
        """Whether more is to be drawn."""
        return not self.over()


Pooling = Literal["mean", "last_token", "cls_token"]
"""How the states of a sequence become one: their mean, the last, or the first."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do."""

    engine: str
    device: str
    losses: tuple[str, ...]
    precisions: tuple[str, ...]
    threads: int
    memory_bytes: int
    """Memory of the device that holds the weights; 0 where there is no such device here."""
    sampling_beside: bool = False
    """Whether sampling has a thread of its own, beside the one that trains."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """How a given policy would be run, in words: ``training`` and ``sampling``; empty where none was given."""


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One call of ``Sampler.sample``, as a backend sees it beside others."""

    prompt: Tokens
    n: int
    params: SamplingParams
    watch: Watch | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ReadRequest:
    """What is asked about one given sequence; see ``PromptReading``."""

    tokens: Tokens
    top: int = 0
    """How many of the likeliest tokens at each place."""
    targets: Ints | None = None
    """[T, K]: tokens whose log-probabilities are asked for at each place; -1 asks nothing."""
    draws: int = 0
    """How many tokens to draw at each place."""
    temperature: float = 1.0
    """At which they are drawn; their log-probabilities are told at 1."""
    seed: int = 0


class Sampler(Protocol):
    """Something that generates, from weights that do not change under it.

    What else is drawn in one batch with a call shows in the last bits of its log-probabilities, and calls on samplers
    of several policies may share a batch: two loops on one engine agree with themselves from run to run only as far as
    their calls meet alike. Samplers of one policy never share one with each other.
    """

    policy_version: int

    async def sample(self, prompt: Tokens, n: int, params: SamplingParams) -> list[Completion]:
        """Draw ``n`` completions of one prompt."""
        ...

    async def logprobs(self, tokens: Tokens, *, temperature: float = 1.0) -> list[float | None]:
        """The log-probability of each token after those before it; None for the first."""
        ...

    async def score(self, tokens: Tokens) -> float:
        """What the reward head of these weights says of a sequence."""
        ...

    async def read(self, request: ReadRequest) -> PromptReading:
        """What the model says at each place of a given sequence."""
        ...

    async def embed(self, tokens: Tokens, *, layer: int = -1, pooling: Pooling = "mean") -> Floats:
        """The states [H] that one layer gives a sequence, as one; layer 0 is the embeddings, -1 the last."""
        ...


class Policy(Protocol):
    """One model being trained. Calls may be issued without awaiting the one before; they run in the order issued.

    Gradients accumulate until ``optim_step``; the sum over calls equals one call on the joined data.
    """

    async def forward(self, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """The loss and log-probabilities, with no gradient."""
        ...

    async def forward_backward(self, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """Add the gradient of the weighted sum of ``loss`` over ``data``."""
        ...

    async def optim_step(self, optimizer: AdamW, *, undoable: bool = False, empty: bool = False) -> OptimResult:
        """Apply the accumulated gradients and clear them; ``undoable`` keeps what was before.

        Without gradients it is refused, unless ``empty`` lets them be zeros.
        """
        ...

    async def undo(self) -> OptimResult:
        """Take the last step back, if it was undoable: weights and moments. The version goes up all the same."""
        ...

    async def sampler(self) -> Sampler:
        """A sampler of the weights as they are now, with their version."""
        ...

    async def save(self, name: str, *, optimizer: bool = True) -> Checkpoint:
        """Write a checkpoint. Names are never reused."""
        ...

    async def restore(self, checkpoint: str, *, optimizer: bool) -> int:
        """Take up the weights of a checkpoint of the same kind of policy; returns the version, which goes up."""
        ...

    async def close(self) -> None:
        """Give its memory back."""
        ...


class Engine(Protocol):
    """A place that computes."""

    async def create_policy(self, spec: PolicySpec) -> Policy:
        """A policy with the weights of ``spec.model``."""
        ...

    async def load_policy(self, checkpoint: str, *, optimizer: bool) -> Policy:
        """A policy as it was saved; with its optimizer, training goes on to the same bits."""
        ...

    async def sampler(self, weights: str) -> Sampler:
        """A sampler of a model or of a saved checkpoint."""
        ...

    async def capabilities(self) -> Capabilities:
        """What this engine can do."""
        ...

    async def statistics(self) -> Mapping[str, float]:
        """How it is doing, as metrics: what its cache of frozen models holds, and how often it was of use."""
        ...


class Backend(Protocol):
    """The synchronous half of an engine, called from one thread; ``sample`` from another if it can sample beside.

    A call that raises leaves the policy as it was. ``weights`` names what is sampled: a model, a
    checkpoint's folder, or what ``pin`` gave.
    """

    def capabilities(self) -> Capabilities: ...

    def create_policy(self, policy: str, spec: PolicySpec) -> int:
        """Returns the policy version."""
        ...

    def load_policy(self, policy: str, checkpoint: str, *, optimizer: bool) -> int:
        """Returns the policy version."""
        ...

    def forward(self, policy: str, data: Sequence[Datum], loss: LossConfig) -> ForwardResult: ...

    def forward_backward(self, policy: str, data: Sequence[Datum], loss: LossConfig) -> ForwardResult: ...

    def optim_step(
        self, policy: str, optimizer: AdamW, *, undoable: bool = False, empty: bool = False
    ) -> OptimResult: ...

    def undo(self, policy: str) -> OptimResult: ...

    def save(self, policy: str, name: str, *, optimizer: bool) -> "Future[Checkpoint]":
        """The policy as it is when this returns; the future is done once that is whole and on the disk."""
        ...

    def restore(self, policy: str, checkpoint: str, *, optimizer: bool) -> int:
        """In place; returns the policy version."""
        ...

    def snapshot(self, policy: str, folder: Path) -> None:
        """Everything a policy is at this moment, gradients, what an undo needs and pinned weights included.

        It is written into a folder that does not exist yet, and is whole and on the disk when this returns.
        """
        ...

    def revive(self, policy: str, folder: Path) -> None:
        """Make a policy anew from its snapshot: it goes on to the same bits, and its pins have their names."""
        ...

    def close_policy(self, policy: str) -> None: ...

    def pin(self, policy: str, name: str | None = None) -> tuple[str, int]:
        """The weights as they are now, by a name (one of the backend's own where none is given), and their version.

        They are copied if a step comes before ``unpin``, or at once where they are sampled beside training.
        """
        ...

    def unpin(self, weights: str) -> None: ...

    def open(self, weights: str) -> int:
        """Makes a model or checkpoint ready to be sampled; returns its version."""
        ...

    def sample(self, weights: Sequence[str], requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """All requests in as few decode batches as can be; ``weights[i]`` names what request ``i`` is drawn from."""
        ...

    def logprobs(self, weights: str, sequences: Sequence[Tokens], *, temperature: float) -> list[Floats]:
        """For each sequence [T]; 0 for its first token."""
        ...

    def scores(self, weights: str, sequences: Sequence[Tokens]) -> list[float]:
        """For each sequence, what the reward head says of it."""
        ...

    def read(self, weights: str, requests: Sequence[ReadRequest]) -> list[PromptReading]:
        """For each request, what the model says at each place of its sequence."""
        ...

    def embed(self, weights: str, sequences: Sequence[Tokens], *, layer: int, pooling: Pooling) -> list[Floats]:
        """For each sequence [H]."""
        ...

    def statistics(self) -> Mapping[str, float]: ...
