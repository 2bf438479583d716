"""The alarm of a run whose learned reward rises while the true one falls: its metric, and what to do."""

from collections.abc import Iterable, Mapping

HACKING = "alarm/reward_hacking"
"""The metric: 1 in an evaluation that raises the alarm, 0 in one that does not."""


def hacked_at(rows: Iterable[Mapping[str, float]]) -> list[int]:
    """The steps after which an evaluation raised the alarm."""
    return [int(row["step"]) for row in rows if row.get(HACKING)]


def hacking_advice(step: int) -> str:
    """A sentence on what the alarm means, and what to try."""
    return (
        f"reward hacking after step {step:,}: the learned reward rises while the true one has fallen from its best. "
        "The policy has found what the reward model likes and nobody wanted: read transcripts/ for it, go on from the "
        "best checkpoint, hold the policy closer (loss.kl.coefficient, reward_model.clip), or teach the reward model "
        "with pairs that show what it missed"
    )
