"""A sampler that follows its policy: replies are drawn piece by piece, each by the newest weights there are."""

from collections.abc import Callable, Sequence
from itertools import chain

from fettle.config import Abort, Keep, SamplingParams
from fettle.engine import Pooling, ReadRequest, Sampler
from fettle.errors import ContextError
from fettle.randomness import key
from fettle.rollouts.together import together
from fettle.types import Completion, Floats, PromptReading, Span, Tokens


class Following:
    """Satisfies ``Sampler``, but that its weights may change between two pieces of a reply.

    A piece is drawn by one version of the policy, from all that stands before it, so its log-probabilities are those of
    the distribution that it was drawn from; ``Completion.spans`` says which version that was.
    """

    def __init__(self, newest: Callable[[], Sampler], settings: Keep | Abort) -> None:
        """``newest`` gives the sampler of the newest weights whenever it is asked."""
        self.policy_version = newest().policy_version
        self.given_up = 0
        """Tokens that were drawn and given up."""
        self._newest = newest
        self._settings = settings

    async def sample(self, prompt: Tokens, n: int, params: SamplingParams) -> list[Completion]:
        """Draw ``n`` completions of one prompt."""
        seeds = [params.seed, *(key(params.seed, "reply", index) for index in range(1, n))]
        return await together(self._reply(prompt, params.model_copy(update={"seed": seed})) for seed in seeds)

    async def logprobs(self, tokens: Tokens, *, temperature: float = 1.0) -> list[float | None]:
        """Of the newest weights."""
        return await self._newest().logprobs(tokens, temperature=temperature)

    async def score(self, tokens: Tokens) -> float:
        """Of the newest weights."""
        return await self._newest().score(tokens)

    async def read(self, request: ReadRequest) -> PromptReading:
        """Of the newest weights."""
        return await self._newest().read(request)

    async def embed(self, tokens: Tokens, *, layer: int = -1, pooling: Pooling = "mean") -> Floats:
        """Of the newest weights."""
        return await self._newest().embed(tokens, layer=layer, pooling=pooling)

    async def _reply(self, prompt: Tokens, params: SamplingParams) -> Completion:
        sampler, drawn = self._newest(), list[Completion]()
        while True:
            so_far = [token for piece in drawn for token in piece.tokens]
            wanted = _next(params, len(so_far), at_most=self._settings.tokens)
            try:
                (piece,) = await sampler.sample([*prompt, *so_far], 1, wanted)
            except ContextError:
                if not drawn:
                    raise
                return joined(drawn)  # the piece before has just filled the context
            drawn.append(piece)
            length = len(so_far) + len(piece.tokens)
            if piece.stop_reason == "stop" or len(piece.tokens) < wanted.max_tokens or length == params.max_tokens:
                return joined(drawn)
            if (newest := self._newest()).policy_version > sampler.policy_version:
                sampler = newest
                if isinstance(self._settings, Abort):
                    self.given_up += length
                    drawn, params = [], _anew(params, newest.policy_version)


def joined(pieces: Sequence[Completion]) -> Completion:
    """One completion of pieces that follow each other, of which there is one at least."""
    spans: list[Span] = []
    for piece in pieces:
        begin = spans[-1].end if spans else 0
        for span in piece.spans:
            start, end = begin + span.start, begin + span.end
            if spans and spans[-1].policy_version == span.policy_version:
                start = spans.pop().start
            spans.append(Span(start, end, span.policy_version))
    untempered = [piece.untempered_logprobs for piece in pieces if piece.untempered_logprobs is not None]
    top = [piece.top for piece in pieces if piece.top is not None]
    return Completion(
        tokens=list(chain.from_iterable(piece.tokens for piece in pieces)),
        logprobs=list(chain.from_iterable(piece.logprobs for piece in pieces)),
        stop_reason=pieces[-1].stop_reason,
        policy_version=min(piece.policy_version for piece in pieces),
        untempered_logprobs=list(chain.from_iterable(untempered)) if untempered else None,
        top=list(chain.from_iterable(top)) if top else None,
        spans=tuple(spans),
    )


def _next(params: SamplingParams, drawn: int, *, at_most: int) -> SamplingParams:
    """How the piece after ``drawn`` tokens is drawn: the first by the reply's seed, each other by one of its own."""
    left = params.max_tokens - drawn
    changed = {
        "max_tokens": min(left, at_most),
        "seed": key(params.seed, "from", drawn) if drawn else params.seed,
        "continued": params.continued or left > at_most,
    }
    return params.model_copy(update=changed)


def _anew(params: SamplingParams, policy_version: int) -> SamplingParams:
    return params.model_copy(update={"seed": key(params.seed, "anew", policy_version)})
