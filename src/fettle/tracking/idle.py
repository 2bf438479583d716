"""Whether a run learns nothing: steps in which no episode had an advantage, as when all rewards are equal."""

from collections.abc import Iterable, Mapping

TEACHING = "advantage/nonzero"
"""The metric: the share of a step's episodes whose advantage is not zero."""
ENOUGH = 3
"""Steps at the beginning without any, after which somebody should be told."""


def idle_beginning(rows: Iterable[Mapping[str, float]]) -> bool:
    """Whether none of the first steps had anything to learn from."""
    shares = [row[TEACHING] for row in rows if TEACHING in row][:ENOUGH]
    return len(shares) == ENOUGH and not any(shares)


def advice(rows: Iterable[Mapping[str, float]]) -> str:
    """A sentence on what such a beginning means, and what to try."""
    rewards = [row["reward/mean"] for row in rows if TEACHING in row and "reward/mean" in row][:ENOUGH]
    earned = ", ".join(dict.fromkeys(f"{reward:g}" for reward in rewards))
    return (
        f"nothing can be learned: in the first {ENOUGH} steps no advantage differed from zero (mean reward {earned}). "
        "All tries at a task earn the same: look in transcripts/ at what the model says, try easier or harder tasks, "
        "a reward with steps between nothing and all, a larger group_size, or a model that sometimes succeeds"
    )
