"""Trajectories to data: one sequence each, the policy's own tokens trained on, everything else masked."""

from collections.abc import Mapping

import numpy as np

from fettle.types import Datum, Floats, Trajectory


def to_datum(trajectory: Trajectory, **streams: Floats) -> Datum:
    """The whole conversation as one sequence, with ``sampling_logprobs`` and any further per-token streams.

    The scalar ``truncated`` is 1 where a limit cut the episode short, and ``unfinished`` where the environment would
    have gone on: not where its last reply was cut at the token limit and scored as it was.
    """
    tokens: list[int] = []
    mask: list[float] = []
    logprobs: list[float] = []
    for turn in trajectory.turns:
        seen, drawn = turn.observation, turn.completion
        tokens += [*seen, *drawn.tokens]
        mask += [0.0] * len(seen) + [1.0] * len(drawn.tokens)
        logprobs += [0.0] * len(seen) + drawn.logprobs
    named: Mapping[str, Floats] = {"sampling_logprobs": np.array(logprobs, np.float32), **streams}
    return Datum(
        tokens=np.array(tokens, np.int32),
        loss_mask=np.array(mask, np.float32),
        streams=named,
        temperature=trajectory.temperature,
        group=trajectory.group,
        scalars={"truncated": float(trajectory.truncated), "unfinished": float(_unfinished(trajectory))},
    )


def _unfinished(trajectory: Trajectory) -> bool:
    return trajectory.truncated and trajectory.turns[-1].completion.stop_reason != "length"
