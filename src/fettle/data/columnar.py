"""Columnar batches, padded, as training services take them: to data with no padding. :mod:`padded` is the way back.

Padding may stand on either side. Sequences of a group or a pair share a ``group``, which is its row's number.
"""

import functools
import warnings
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import numpy as np

from fettle.advantages import repeated_constant
from fettle.data.arrays import (
    Array,
    Bools,
    Columns,
    arrays,
    check_finite,
    check_ids,
    check_logprobs,
    check_shape,
    check_unbroken,
    mask,
    token_ids,
)
from fettle.errors import LossInputError
from fettle.types import Datum, ids_of

Batch = Mapping[str, object]

TRAINED = ("loss_mask", "response_mask", "labels")
"""Any one of them says which tokens are trained on."""
STREAMS = MappingProxyType(
    {
        "old_log_probs": "sampling_logprobs",
        "behavior_log_probs": "sampling_logprobs",
        "values": "values",
        "old_values": "old_values",
        "advantages": "advantages",
        "rewards": "rewards",
    }
)
"""Columns of one number a token, and the streams that they become."""
SCALARS = MappingProxyType({"rewards": "reward", "behavior_log_probs": "behavior_logprob"})
"""Columns that may also have one number a sequence, and the scalars that they then become."""
UNTRAINED_LABEL = -100


def sequences(
    batch: Batch, *, required: Collection[str] = (), optional: Collection[str] = (*TRAINED, *STREAMS)
) -> list[Datum]:
    """A datum for each row of ``input_ids`` [B, T].

    Trained on are the tokens that ``loss_mask`` or ``response_mask`` has 1 for, or whose ``labels`` are not -100, or
    where none of these is given all of them; never the first, which nothing stands before. ``rewards`` [B] become
    the scalar ``reward``, ``behavior_log_probs`` [B], of whole sequences, ``behavior_logprob``; ``advantages`` [B]
    stand on every trained token.

    Raises:
        LossInputError: a column is missing, is not known or does not fit; or a row trains on nothing.
    """
    asked = ("input_ids", "attention_mask", *required)
    columns = arrays(batch, required=asked, optional=[name for name in optional if name not in asked])
    tokens = token_ids(columns, "input_ids", ("batch", "seq_len"))
    real = _real(columns, "input_ids", "attention_mask")
    trained = _trained(columns, tokens, real)
    if (empty := ~trained.any(axis=1)).any():
        raise LossInputError(f"row {np.argmax(empty)} of input_ids has no token to train on: its response is empty")
    streams = _streams(columns, real, trained)
    scalars = _scalars(columns, tokens)
    return [
        _datum(
            tokens[row, held],
            trained[row, held],
            streams={name: values[row, held] for name, values in streams.items()},
            scalars={name: float(values[row]) for name, values in scalars.items()},
        )
        for row, held in enumerate(real)
    ]


def pairs(batch: Batch) -> list[Datum]:
    """Two data for each row of ``chosen_*`` and ``rejected_*`` [B, T]: the chosen, then the rejected.

    Trained on are the tokens that ``chosen_loss_mask`` and ``rejected_loss_mask`` say, or those after the first
    ``prompt_length`` [B] real ones. Where neither is given, what both sequences begin with is the prompt: if a little
    of the replies is alike too, its log-probabilities are the same on both sides and cancel.

    Raises:
        LossInputError: a column is missing, is not known or does not fit; or a reply is empty, or both are the same.
    """
    columns = arrays(
        batch,
        required=("chosen_input_ids", "chosen_attention_mask", "rejected_input_ids", "rejected_attention_mask"),
        optional=("chosen_loss_mask", "rejected_loss_mask", "prompt_length", "margin"),
    )
    chosen, rejected = _side(columns, "chosen"), _side(columns, "rejected")
    if len(chosen) != len(rejected):
        shapes = [list(columns[f"{side}_input_ids"].shape) for side in ("chosen", "rejected")]
        raise LossInputError(
            f"chosen_input_ids has shape {shapes[0]} and rejected_input_ids {shapes[1]}: each chosen needs a rejected"
        )
    for row, (better, worse) in enumerate(zip(chosen, rejected, strict=True)):
        if np.array_equal(better, worse):
            raise LossInputError(f"row {row}: chosen and rejected are the same, and so nothing is preferred")
    masks = _pair_masks(columns, chosen, rejected)
    margins = _margins(columns, len(chosen))
    return [
        _datum(tokens[row], trained[row], streams={}, group=str(row), scalars={"preferred": preferred, **margins[row]})
        for row in range(len(chosen))
        for preferred, tokens, trained in ((1.0, chosen, masks[0]), (0.0, rejected, masks[1]))
    ]


def groups(batch: Batch) -> list[Datum]:
    """A datum for each response: ``prompt_ids`` [B, P] with ``response_ids`` [B, G, R] after it, trained on these.

    A response whose ``response_masks`` are all 0 is not there, and its reward enters nothing. Every id of a prompt is
    real unless ``prompt_masks`` [B, P] says otherwise.

    Raises:
        LossInputError: a column is missing, is not known or does not fit; or a group has fewer than two responses.
    """
    columns = arrays(
        batch,
        required=("prompt_ids", "response_ids", "rewards", "response_masks"),
        optional=("old_log_probs", "prompt_masks"),
    )
    prompts = token_ids(columns, "prompt_ids", ("batch_size", "prompt_len"))
    responses = token_ids(columns, "response_ids", ("batch_size", "num_samples", "response_len"))
    if len(prompts) != len(responses):
        check_shape(columns, "prompt_ids", (len(responses), prompts.shape[1]), "response_ids")
    asked = _real(columns, "prompt_ids", "prompt_masks") if "prompt_masks" in columns else np.full(prompts.shape, True)
    said = _real(columns, "response_ids", "response_masks")
    check_ids("prompt_ids", prompts, asked)
    there = _compared(columns, said)
    if (empty := ~asked.any(axis=1)).any():
        raise LossInputError(f"row {np.argmax(empty)} of prompt_ids is empty: the first token needs one before it")
    logprobs = {}
    if "old_log_probs" in columns:
        logprobs["sampling_logprobs"] = check_shape(columns, "old_log_probs", said.shape, "response_ids")
        check_logprobs("old_log_probs", logprobs["sampling_logprobs"], said)
    return [
        _answer(
            prompts[row, asked[row]],
            responses[row, one, said[row, one]],
            {name: values[row, one, said[row, one]] for name, values in logprobs.items()},
            reward=float(columns["rewards"][row, one]),
            group=str(row),
        )
        for row, one in np.argwhere(there)
    ]


_PPO = functools.partial(
    sequences, required=("old_log_probs", "rewards"), optional=("values", "old_values", "response_mask", "loss_mask")
)
FORMATS: Mapping[str, Callable[[Batch], list[Datum]]] = MappingProxyType(
    {
        "causal_lm": functools.partial(sequences, optional=TRAINED),
        "enhanced_ppo": _PPO,
        "conservative_ppo": _PPO,
        "importance_sampling": functools.partial(
            sequences,
            required=("behavior_log_probs", "rewards"),
            optional=("advantages", "response_mask", "loss_mask"),
        ),
        "dpo": pairs,
        "reward_modeling": pairs,
        "grpo": groups,
    }
)
"""How the batches of each loss are read."""


def _real(columns: Columns, ids: str, name: str) -> Bools:
    """Where the tokens ``ids`` are no padding, as the mask ``name`` says."""
    real = mask(columns, name, columns[ids].shape, ids)
    check_unbroken(name, real)
    check_ids(ids, columns[ids], real)
    return real


def _trained(columns: Columns, tokens: Array, real: Bools) -> Bools:
    given = [name for name in TRAINED if name in columns]
    if len(given) > 1:
        raise LossInputError(f"the batch has {' and '.join(given)}, and one of them says what is trained on: give one")
    trained = real
    if "labels" in given:
        labels = check_shape(columns, "labels", tokens.shape, "input_ids")
        trained = real & (labels != UNTRAINED_LABEL)
        if (other := trained & (labels != tokens)).any():
            row, at = np.argwhere(other)[0]
            raise LossInputError(
                f"labels[{row}, {at}] is {labels[row, at]} where input_ids has {tokens[row, at]}: a label stands beside"
                " its own token, or is -100"
            )
    elif given:
        trained = real & mask(columns, given[0], tokens.shape, "input_ids")
    return trained & (np.cumsum(real, axis=1) > 1)


def _streams(columns: Columns, real: Bools, trained: Bools) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for name, stream in STREAMS.items():
        if name not in columns or (columns[name].ndim == 1 and name in SCALARS):
            continue
        if columns[name].ndim == 1 and name == "advantages":
            one = check_shape(columns, name, (len(real),), "input_ids")
            values = np.where(trained, one[:, None], 0.0)
        else:
            values = check_shape(columns, name, real.shape, "input_ids")
        check_finite(name, values, real)
        if stream == "sampling_logprobs":
            check_logprobs(name, values, trained)
        if stream in found and not np.array_equal(found[stream][real], values[real]):
            both = " and ".join(other for other in STREAMS if STREAMS[other] == stream)
            raise LossInputError(f"{both} say the same thing, and here they differ: give one of them")
        found[stream] = values
    if "rewards" in found:
        _warn_of_copied_rewards(found["rewards"], trained)
    return found


def _warn_of_copied_rewards(rewards: Array, trained: Bools) -> None:
    """One reward for a whole sequence, copied to its every token, grows with the length of the sequence."""
    for values, where in zip(rewards, trained, strict=True):
        if repeated_constant(values[where], np.ones(where.sum())):
            warnings.warn(
                f"every token of a sequence has the reward {values[where][0]}, so that longer ones earn more: give"
                " rewards the shape [batch], and each goes to the last token",
                UserWarning,
                stacklevel=4,
            )
            return


def _scalars(columns: Columns, tokens: Array) -> dict[str, Array]:
    found = {}
    for name, scalar in SCALARS.items():
        if name in columns and columns[name].ndim == 1:
            values = check_shape(columns, name, (len(tokens),), "input_ids")
            (check_finite if scalar == "reward" else check_logprobs)(name, values, np.full(len(tokens), True))
            found[scalar] = values
    return found


def _compared(columns: Columns, said: Bools) -> Bools:
    """Where there is a response, and a reward for it to be compared by [B, G]."""
    there = np.asarray(said.any(axis=2))
    rewards = check_shape(columns, "rewards", there.shape, "response_ids")
    check_finite("rewards", rewards, there)
    responses = there.sum(axis=1)
    if (few := responses < 2).any():
        at = int(np.argmax(few))
        raise LossInputError(
            f"group {at} has {responses[at]} responses, and only two or more can be compared: sample more, or leave the"
            " group out"
        )
    return there


def _side(columns: Columns, side: str) -> list[Array]:
    """The real tokens of each row."""
    ids = token_ids(columns, f"{side}_input_ids", ("batch", "seq_len"))
    real = _real(columns, f"{side}_input_ids", f"{side}_attention_mask")
    if (short := real.sum(axis=1) < 2).any():
        raise LossInputError(
            f"row {np.argmax(short)} of {side}_input_ids has no token after its first: its response is empty"
        )
    return [row[held] for row, held in zip(ids, real, strict=True)]


def _pair_masks(columns: Columns, chosen: list[Array], rejected: list[Array]) -> tuple[list[Bools], list[Bools]]:
    given = [name for name in ("chosen_loss_mask", "rejected_loss_mask") if name in columns]
    if not given:
        begins = _prompt_lengths(columns, chosen, rejected)
        after = [
            [np.arange(len(row)) >= at for row, at in zip(side, begins, strict=True)] for side in (chosen, rejected)
        ]
        return after[0], after[1]
    if "prompt_length" in columns:
        raise LossInputError(f"the batch has prompt_length and {' and '.join(given)}: one of them says it, give one")
    if len(given) == 1:
        raise LossInputError(f"{given[0]} has no partner: give chosen_loss_mask and rejected_loss_mask, or neither")
    return _side_mask(columns, "chosen"), _side_mask(columns, "rejected")


def _side_mask(columns: Columns, side: str) -> list[Bools]:
    ids = f"{side}_input_ids"
    real = columns[f"{side}_attention_mask"].astype(bool)
    trained = mask(columns, f"{side}_loss_mask", real.shape, ids) & real & (np.cumsum(real, axis=1) > 1)
    if (empty := ~trained.any(axis=1)).any():
        raise LossInputError(f"row {np.argmax(empty)} of {ids} has no token to train on: its response is empty")
    return [row[held] for row, held in zip(trained, real, strict=True)]


def _prompt_lengths(columns: Columns, chosen: list[Array], rejected: list[Array]) -> list[int]:
    if "prompt_length" not in columns:
        return [max(1, _alike(better, worse)) for better, worse in zip(chosen, rejected, strict=True)]
    lengths = token_ids(columns, "prompt_length", ("batch",))
    check_shape(columns, "prompt_length", (len(chosen),), "chosen_input_ids")
    for row, (at, better, worse) in enumerate(zip(lengths, chosen, rejected, strict=True)):
        if not 1 <= at < min(len(better), len(worse)):
            raise LossInputError(
                f"prompt_length[{row}] is {at}, and the sequences have {len(better)} and {len(worse)} tokens: it must"
                " leave each a prompt and a response"
            )
    return [int(at) for at in lengths]


def _alike(chosen: Array, rejected: Array) -> int:
    """How many tokens both begin with, one of each at least being left over."""
    both = min(len(chosen), len(rejected)) - 1
    return int(np.argmin(np.append(chosen[:both] == rejected[:both], False)))


def _margins(columns: Columns, size: int) -> list[dict[str, float]]:
    if "margin" not in columns:
        return [{} for _ in range(size)]
    margins = check_shape(columns, "margin", (size,), "chosen_input_ids")
    check_finite("margin", margins, np.full(size, True))
    return [{"margin": float(margin)} for margin in margins]


def _answer(prompt: Array, said: Array, streams: Mapping[str, Array], *, reward: float, group: str) -> Datum:
    """A response after its prompt, with its streams, which are 0 on the prompt."""
    before = np.zeros(len(prompt), np.float32)
    return _datum(
        np.concatenate([prompt, said]),
        np.concatenate([before, np.ones(len(said))]),
        streams={name: np.concatenate([before, values]) for name, values in streams.items()},
        group=group,
        scalars={"reward": reward},
    )


def _datum(
    tokens: Array,
    trained: Array,
    *,
    scalars: Mapping[str, float],
    streams: Mapping[str, Array],
    group: str = "",
) -> Datum:
    numbers = {name: values.astype(np.float32) for name, values in streams.items()}
    return Datum(ids_of("input_ids", tokens), trained.astype(np.float32), numbers, group=group, scalars=scalars)
