"""A run whose learned reward rises alone: the alarm where the true one falls, a word where it stays; what to do."""

from collections.abc import Iterable, Mapping

HACKING = "alarm/reward_hacking"
"""The metric: 1 in an evaluation that raises the alarm, 0 in one that does not."""
FLAT = "note/true_reward_flat"
"""The metric: 1 in an evaluation up to which the learned reward rose and the true one did not, without an alarm."""


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


def flat_advice(step: int) -> str:
    """A sentence on what it may mean that only the learned reward rises."""
    return (
        f"up to step {step:,} the learned reward rises and the true one stays where it was: it may follow later, "
        "it may have no room left, or the reward model likes something else: transcripts/ shows which"
    )


def verdict(rows: Iterable[Mapping[str, float]]) -> str:
    """What the monitor found, in a line, with a note where the newest evaluation has one; empty without a monitor."""
    watched = [row for row in rows if HACKING in row]
    if not watched:
        return ""
    alarms = ", ".join(f"{step:,}" for step in hacked_at(watched))
    found = f"reward hacking after step {alarms}" if alarms else "no alarm"
    newest = watched[-1]
    note = f" Note: {flat_advice(int(newest['step']))}." if newest.get(FLAT) else ""
    return f"Monitor: {found} (evaluations: {len(watched):,}). Learned rewards are after scale and clip.{note}"
