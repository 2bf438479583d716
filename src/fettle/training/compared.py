"""What is compared: prompts and replies made into data for the losses of pairs and of single replies."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fettle.chat import Template
from fettle.config import DPO, KTO, ORPO, RewardModeling, SimPO
from fettle.data import Preference, Rating
from fettle.engine import Sampler
from fettle.training.credit import with_streams
from fettle.types import Datum, Floats, ForwardResult, Ints, Message

Example = Preference | Rating
Loss = DPO | SimPO | ORPO | KTO | RewardModeling

TIE = 1e-5
"""Rewards that differ by less are a tie: so much the order of a sum may change."""


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """A prompt and one reply to it, as tokens [T]; they end with the token that ends the reply."""

    tokens: Ints
    spoken: int
    """How many of them, the last ones, are the reply's."""
    preferred: float
    margin: float

    @property
    def loss_mask(self) -> Floats:
        """1 on the reply and on the token that ends it, 0 on the prompt."""
        return (np.arange(len(self.tokens)) >= len(self.tokens) - self.spoken).astype(np.float32)

    def after(self, other: "Reply", *, limit: int) -> "Reply":
        """The same reply to the prompt of another, cut where the two do not fit together."""
        prompt = other.tokens[: -other.spoken]
        tokens = np.concatenate([prompt, self.tokens[-self.spoken :]])[:limit]
        return replace(self, tokens=tokens, spoken=len(tokens) - len(prompt))


def encoded(template: Template, examples: Mapping[int, Example]) -> dict[int, tuple[Reply, ...]]:
    """The replies of each example: the chosen and the rejected, or the one that was rated.

    Raises:
        DataError: the template does not write what one of them says as it stands.
    """
    return {index: tuple(_replies(template, example)) for index, example in examples.items()}


def batch(examples: Sequence[tuple[Reply, ...]]) -> list[Datum]:
    """Data that weigh the same, example by example; of a pair, the chosen comes first."""
    return [
        Datum(
            reply.tokens,
            reply.loss_mask,
            group=str(place),
            scalars={"preferred": reply.preferred, "margin": reply.margin, "weight": 1 / len(examples)},
        )
        for place, replies in enumerate(examples)
        for reply in replies
    ]


def mismatched(examples: Sequence[tuple[Reply, ...]]) -> list[Datum]:
    """Each prompt with the reply to the next one, the last with the first's; none is longer than the longest was."""
    replies = [reply for (reply,) in examples]
    following, longest = [*replies[1:], replies[0]], max(len(reply.tokens) for reply in replies)
    return batch([(other.after(reply, limit=longest),) for reply, other in zip(replies, following, strict=True)])


async def with_reference(data: Sequence[Datum], reference: Sampler) -> list[Datum]:
    """The data with ``reference_logprobs`` [T]."""

    async def one(datum: Datum) -> Datum:
        found = await reference.logprobs(datum.tokens.tolist())
        return with_streams(datum, reference_logprobs=np.array([0.0, *found[1:]], np.float32) * datum.loss_mask)

    return list(await asyncio.gather(*map(one, data)))


def with_baseline(data: Sequence[Datum], apart: Sequence[Datum], logprobs: Sequence[Floats]) -> list[Datum]:
    """The data with KTO's ``kl_baseline`` (Ethayarajh et al., 2024, arXiv:2402.01306), which takes no gradient::

        z0 = max(0, mean of log π(y'|x) - log ρ(y'|x))

    y' answers another prompt than x: ``apart`` are such data, and ``logprobs`` [T] the policy's of each.
    """
    ratios = [
        float((said - datum.streams["reference_logprobs"]).sum()) for datum, said in zip(apart, logprobs, strict=True)
    ]
    baseline = max(0.0, float(np.mean(ratios)))
    return [replace(datum, scalars={**datum.scalars, "kl_baseline": baseline}) for datum in data]


def margins(loss: Loss, data: Sequence[Datum], result: ForwardResult) -> Floats:
    """By how much each pair, or each rated reply, is on its right side, in units of reward [N]."""
    if isinstance(loss, RewardModeling):
        scores = np.array(result.scores, np.float32)
        return scores[0::2] - scores[1::2]
    rewards = np.array([_implicit(loss, d, said) for d, said in zip(data, result.logprobs, strict=True)], np.float32)
    if isinstance(loss, KTO):
        sides = np.array([2 * datum.scalars["preferred"] - 1 for datum in data], np.float32)
        baselines = np.array([datum.scalars["kl_baseline"] for datum in data], np.float32)
        return sides * (rewards - loss.beta * baselines)
    return rewards[0::2] - rewards[1::2]


def hits(margins: Floats) -> list[float]:
    """1 where a margin is above 0, 0 where it is below, and a half for a tie [N]: chance is a half."""
    return [0.5 if abs(margin) <= TIE else float(margin > 0) for margin in margins.tolist()]


def _implicit(loss: DPO | SimPO | ORPO | KTO, datum: Datum, logprobs: Floats) -> float:
    """The reward that a loss of log-probabilities implies: β times their sum against the reference's, or their mean."""
    total = float(logprobs.sum())
    if isinstance(loss, KTO) or (isinstance(loss, DPO) and not loss.reference_free):
        total -= float(datum.streams["reference_logprobs"].sum())
    if isinstance(loss, SimPO | ORPO) or (isinstance(loss, DPO) and loss.length_normalized):
        total /= float(datum.loss_mask.sum())
    return loss.beta * total


def _replies(template: Template, example: Example) -> Iterator[Reply]:
    if isinstance(example, Rating):
        yield _reply(template, example.prompt, example.completion, float(example.desirable), 0.0)
    else:
        yield _reply(template, example.prompt, example.chosen, 1.0, example.margin)
        yield _reply(template, example.prompt, example.rejected, 0.0, example.margin)


def _reply(template: Template, prompt: Sequence[Message], text: str, preferred: float, margin: float) -> Reply:
    tokens, mask = template.conversation((*prompt, Message("assistant", text)))
    trained = np.flatnonzero(mask)
    end = int(trained[-1]) + 1
    # Earlier replies in the prompt are trained on in a conversation, but not here.
    gaps = np.flatnonzero(np.diff(trained) > 1)
    start = int(trained[gaps[-1] + 1] if gaps.size else trained[0])
    return Reply(np.asarray(tokens[:end], np.int32), end - start, preferred, margin)
