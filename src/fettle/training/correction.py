"""Correction of a batch whose sampler computes other probabilities than the trainer under the same weights."""

from collections.abc import Mapping, Sequence

from fettle.advantages import mismatch, mismatch_weights
from fettle.config import Correction, Reading
from fettle.engine import Policy
from fettle.training.credit import with_streams
from fettle.types import Datum

WEIGHT = "correction"
"""The stream of what each token's credit is multiplied by."""


async def corrected(
    data: Sequence[Sequence[Datum]], policy: Policy, settings: Correction | None
) -> tuple[Sequence[Sequence[Datum]], Mapping[str, float]]:
    """The data with the trainer's own probabilities in the place of the sampler's, and how far the two were apart.

    What a loss takes for the ratio is then only what training moves. The policy must still be the one that drew, so
    this comes before any update. How much each token's credit is to be multiplied by stands in a stream of its own,
    for :func:`reweighted`.
    """
    if settings is None:
        return data, {}
    flat = [datum for rows in data for datum in rows]
    own = (await policy.forward(flat, Reading(of="logprobs"))).logprobs
    drawn = [datum.streams["sampling_logprobs"] for datum in flat]
    masks = [datum.loss_mask for datum in flat]
    weights = (
        mismatch_weights(mine, its, mask, kind=settings.kind, cap=settings.cap, level=settings.level)
        for mine, its, mask in zip(own, drawn, masks, strict=True)
    )
    found = (
        with_streams(datum, sampling_logprobs=logprobs, **{WEIGHT: weight})
        for datum, logprobs, weight in zip(flat, own, weights, strict=True)
    )
    return [[next(found) for _ in rows] for rows in data], mismatch(own, drawn, masks)


def reweighted(data: Sequence[Sequence[Datum]]) -> Sequence[Sequence[Datum]]:
    """The data with ``advantages`` multiplied by their correction, where there is one; divisors count every token."""
    return [
        [
            with_streams(datum, advantages=datum.streams["advantages"] * datum.streams[WEIGHT])
            if WEIGHT in datum.streams
            else datum
            for datum in rows
        ]
        for rows in data
    ]
