"""What several kinds of run are made of: evaluation, sampling, checkpoints, reduction."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fettle.config.base import Frozen


def _names_a_folder(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ValueError(
            f"name is {name!r}, and a folder is named for it: use letters, digits, dots, dashes and underscores"
        )
    return name


FolderName = Annotated[str, AfterValidator(_names_a_folder)]


Half = Literal["first", "second"] | None


class Evaluation(Frozen):
    """Scoring on held-out tasks."""

    every: Annotated[int, Field(ge=1)] = 20
    """Steps between evaluations; there is always one before the first step and one after the last."""
    tasks: Annotated[int, Field(ge=1)] = 200
    """Held-out tasks scored, shared among the environments."""
    half: Half = None
    """Score every other held-out task alone, from the first or from the second on; null scores all. A study scores its
    trials by the one half, and its comparison by the other."""
    samples: Annotated[int, Field(ge=1)] = 1
    """Completions drawn for each held-out task; with k of them, pass@k is told beside the mean."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Temperature of the scored completions; 0 takes the likeliest token."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many evaluations without a better score; null never stops early."""
    target: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Stop once the held-out score reaches this; null never stops early."""


class HeldoutLoss(Frozen):
    """The loss on held-out conversations."""

    every: Annotated[int, Field(ge=1)] = 20
    """Steps between evaluations; there is always one before the first step and one after the last."""
    half: Half = None
    """Score every other question that is held out alone, from the first or from the second on; null scores all."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many evaluations without a lower loss; null never stops early."""


class HeldoutPairs(Frozen):
    """The loss and the accuracy on held-out pairs."""

    every: Annotated[int, Field(ge=1)] = 20
    """Steps between evaluations; there is always one before the first step and one after the last."""
    half: Half = None
    """Score every other question that is held out alone, from the first or from the second on; null scores all."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many evaluations without a higher accuracy; null never stops early."""
    target: Annotated[float, Field(gt=0, le=1)] | None = None
    """Stop once the held-out accuracy reaches this; null never stops early."""


class Sampling(Frozen):
    """How completions are drawn while training: always from the whole distribution, so that ratios mean something."""

    max_tokens: Annotated[int, Field(ge=1)] = 256
    """Most tokens in one completion."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Logits are divided by it, when drawing and when training alike."""
    stop: tuple[str, ...] = ()
    """A completion ends with the token that completes one of these strings."""


class Limits(Frozen):
    """Where an episode is cut short, and what may fail. What a limit cuts short is ``truncated``, and says by which."""

    turns: Annotated[int, Field(ge=1)] = 32
    """Most replies of the policy in one episode."""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens that the policy draws in one episode; null leaves that to the turns and the model's context."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """After so long no further turn is begun; null for never. What is cut by a clock is not the same in every run."""
    step_seconds: Annotated[float, Field(gt=0)] = 300.0
    """How long an environment may take for one answer; beyond that its episode has failed."""
    failed_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the episodes of one step that may fail; where more do, the run ends."""


USUAL_LIMITS = Limits()
"""Those of whoever sets none."""


class Checkpoints(Frozen):
    """When the policy is saved, and what is kept."""

    every: Annotated[int, Field(ge=1)] = 20
    """Steps between checkpoints; there is always one after the last step."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Newest checkpoints kept, besides the one with the best held-out score."""


class TokenMean(Frozen):
    """Each token counts the same: the sum is divided by the batch's trained tokens (DAPO)."""

    type: Literal["token_mean"] = "token_mean"


class SequenceMean(Frozen):
    """Each sequence counts the same, and each token the same within its sequence (GRPO)."""

    type: Literal["sequence_mean"] = "sequence_mean"


class SequenceSum(Frozen):
    """Tokens are summed within a sequence, and sequences averaged (REINFORCE, RLOO)."""

    type: Literal["sequence_sum"] = "sequence_sum"


class FixedLength(Frozen):
    """Tokens are summed and divided by the sequences times ``sampling.max_tokens`` (Dr. GRPO)."""

    type: Literal["fixed_length"] = "fixed_length"


Reduction = Annotated[TokenMean | SequenceMean | SequenceSum | FixedLength, Field(discriminator="type")]
"""How per-token losses become one number."""
