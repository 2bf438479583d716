"""On-policy distillation: a teacher says of each token that the policy drew how likely it would have been.

Agarwal et al., 2023 (arXiv:2306.13649); as a reward of each token, Gu et al., 2023 (arXiv:2306.08543).
"""

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from fettle.config import Teacher
from fettle.engine import Sampler
from fettle.training.credit import with_streams
from fettle.types import Datum, Floats


async def distilled(
    data: Sequence[Sequence[Datum]], teacher: Sampler | None, settings: Teacher | None
) -> tuple[Sequence[Sequence[Datum]], Mapping[str, float]]:
    """The data with each token's ``coefficient · (log τ - log μ)`` in its advantage, and the reverse KL.

    τ is the teacher's probability and μ that of whoever drew. A token is credited with its own difference and not with
    those that follow: the divergence is that of the next token, in the places that the policy leads to, and how it
    leads there takes no gradient. ``distill/reverse_kl`` is the mean of ``log μ - log τ``, an unbiased estimate of it.
    """
    if teacher is None or settings is None:
        return data, {}
    flat = [datum for rows in data for datum in rows]
    said = await asyncio.gather(*(_judged(teacher, datum) for datum in flat))
    gaps = [(tau - datum.streams["sampling_logprobs"]) * datum.loss_mask for tau, datum in zip(said, flat, strict=True)]
    found = (
        with_streams(datum, advantages=datum.streams["advantages"] + settings.coefficient * gap)
        for datum, gap in zip(flat, gaps, strict=True)
    )
    trained = sum(float(datum.loss_mask.sum()) for datum in flat)
    row = {"distill/reverse_kl": -sum(float(gap.sum(dtype=np.float64)) for gap in gaps) / trained}
    return [[next(found) for _ in rows] for rows in data], row


async def _judged(teacher: Sampler, datum: Datum) -> Floats:
    found = await teacher.logprobs(datum.tokens.tolist(), temperature=datum.temperature)
    return np.array([0.0, *found[1:]], np.float32)
