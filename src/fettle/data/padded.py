"""Data as columns padded on the right: the way back from :mod:`columnar`."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from fettle.data.arrays import Array
from fettle.errors import LossInputError
from fettle.types import Datum

TOKEN_COLUMNS = MappingProxyType(
    {
        "sampling_logprobs": "old_log_probs",
        "values": "values",
        "old_values": "old_values",
        "advantages": "advantages",
        "rewards": "rewards",
    }
)
SEQUENCE_COLUMNS = MappingProxyType({"reward": "rewards", "behavior_logprob": "behavior_log_probs"})


def columns(data: Sequence[Datum]) -> dict[str, Array]:
    """The batch that ``sequences`` reads these data from; a datum's group and temperature have no column.

    Raises:
        LossInputError: a datum has a stream or a scalar that has no column, or that another lacks; or both a reward
            a token and one a sequence.
    """
    streams, scalars = _names(data, TOKEN_COLUMNS, SEQUENCE_COLUMNS)
    if {"rewards", "reward"} <= {*streams, *scalars}:
        raise LossInputError("the data have rewards of tokens and of sequences, and one column holds one of them")
    return {
        "input_ids": _padded([one.tokens for one in data]),
        "attention_mask": _padded([np.ones_like(one.tokens) for one in data]),
        "loss_mask": _padded([one.loss_mask for one in data]),
        **{TOKEN_COLUMNS[name]: _padded([one.streams[name] for one in data]) for name in streams},
        **{SEQUENCE_COLUMNS[name]: np.array([one.scalars[name] for one in data]) for name in scalars},
    }


def pair_columns(data: Sequence[Datum]) -> dict[str, Array]:
    """The batch that ``pairs`` reads these data from, one row for each group.

    Raises:
        LossInputError: a group is not one chosen and one rejected; or a datum has what has no column.
    """
    _, scalars = _names(data, (), ("preferred", "margin"))
    found: dict[str, Array] = {}
    for side, preferred in (("chosen", 1), ("rejected", 0)):
        one_side = [_only(members, preferred) for members in _grouped(data).values()]
        found[f"{side}_input_ids"] = _padded([one.tokens for one in one_side])
        found[f"{side}_attention_mask"] = _padded([np.ones_like(one.tokens) for one in one_side])
        found[f"{side}_loss_mask"] = _padded([one.loss_mask for one in one_side])
        if "margin" in scalars:
            found["margin"] = np.array([one.scalars["margin"] for one in one_side])
    return found


def group_columns(data: Sequence[Datum]) -> dict[str, Array]:
    """The batch that ``groups`` reads these data from, one row for each group; what a ragged group lacks is masked.

    Raises:
        LossInputError: those of a group answer different prompts, or something is trained on that is no response; or
            a datum has what has no column.
    """
    streams, scalars = _names(data, ("sampling_logprobs",), ("reward",))
    if not scalars:
        raise LossInputError("the data have no reward, and every response of a group needs one")
    members = list(_grouped(data).values())
    prompts = [_prompt(group) for group in members]

    def responses(rows: Sequence[Sequence[Array]]) -> Array:
        said = [[row[len(prompt) :] for row in group] for group, prompt in zip(rows, prompts, strict=True)]
        return _padded_groups(said)

    found = {
        "prompt_ids": _padded(prompts),
        "prompt_masks": _padded([np.ones_like(prompt) for prompt in prompts]),
        "response_ids": responses([[one.tokens for one in group] for group in members]),
        "response_masks": responses([[one.loss_mask for one in group] for group in members]),
        "rewards": _padded([np.array([one.scalars["reward"] for one in group]) for group in members]),
    }
    for name in streams:
        found[TOKEN_COLUMNS[name]] = responses([[one.streams[name] for one in group] for group in members])
    return found


def _names(data: Sequence[Datum], streams: Collection[str], scalars: Collection[str]) -> tuple[list[str], list[str]]:
    """The streams and scalars that every datum has, each of which has a column."""
    if not data:
        raise LossInputError("there are no data, and a batch needs a row")
    first = (set(data[0].streams), set(data[0].scalars))
    for one in data:
        if (set(one.streams), set(one.scalars)) != first:
            raise LossInputError("some data have streams or scalars that others lack: columns stand in every row")
    if homeless := sorted(first[0] - set(streams)) + sorted(first[1] - set(scalars)):
        raise LossInputError(f"no column holds {', '.join(homeless)}: leave it out of the data")
    return sorted(first[0]), sorted(first[1])


def _grouped(data: Sequence[Datum]) -> Mapping[str, list[Datum]]:
    found: dict[str, list[Datum]] = {}
    for one in data:
        found.setdefault(one.group, []).append(one)
    return found


def _only(members: Sequence[Datum], preferred: int) -> Datum:
    found = [one for one in members if one.scalars.get("preferred") == preferred]
    if len(found) != 1 or len(members) != 2:
        raise LossInputError(f"the group {members[0].group!r} is no pair: one chosen and one rejected are needed")
    return found[0]


def _prompt(members: Sequence[Datum]) -> Array:
    """What all of a group answer, told by where each begins to be trained on."""
    start = min(int(np.argmax(one.loss_mask)) for one in members)
    prompt = members[0].tokens[:start]
    if not all(np.array_equal(one.tokens[:start], prompt) and one.loss_mask[start:].all() for one in members):
        raise LossInputError(
            f"the group {members[0].group!r} does not answer one prompt, or does not train on its answers whole"
        )
    return prompt


def _padded(rows: Sequence[Array]) -> Array:
    """[N, the longest], 0 after each row's end."""
    whole = np.zeros((len(rows), max(len(row) for row in rows)), rows[0].dtype)
    for place, row in zip(whole, rows, strict=True):
        place[: len(row)] = row
    return whole


def _padded_groups(rows: Sequence[Sequence[Array]]) -> Array:
    """[B, the largest group, the longest], 0 where there is nothing."""
    shape = (len(rows), max(len(group) for group in rows), max(len(row) for group in rows for row in group))
    whole = np.zeros(shape, rows[0][0].dtype)
    for places, group in zip(whole, rows, strict=True):
        for place, row in zip(places, group, strict=False):
            place[: len(row)] = row
    return whole
