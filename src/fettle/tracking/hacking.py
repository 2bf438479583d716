"""A run whose learned reward rises alone: the alarm where the true one falls, a word where it stays; what to do."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

HACKING = "alarm/reward_hacking"
"""The metric: 1 in an evaluation that raises the alarm, 0 in one that does not."""
FLAT = "note/true_reward_flat"
"""The metric: 1 in an evaluation up to which the learned reward rose and the true one did not, without an alarm."""
COMPONENT = "alarm/component"
"""The metric: 1 in an evaluation up to which the reward rose while one of its components fell."""
LENGTH = "alarm/length"
"""The metric: 1 in an evaluation whose replies are several times as long as those at the start, and earn more."""
REPETITION = "alarm/repetition"
"""The metric: 1 in an evaluation whose replies repeat themselves much more than at the start, and earn more."""

SIGNS: Mapping[str, str] = MappingProxyType(
    {
        COMPONENT: "the reward rises while one of its components falls (heldout/component/...): the policy gives up "
        "the one for the others. See in transcripts/ whether that was meant; if not, lower the others' scale, or clip "
        "them",
        LENGTH: "replies are several times as long as at the start, and earn more: see in transcripts/ whether the "
        "length is of use; if not, look for what pays for it",
        REPETITION: "replies repeat themselves much more than at the start, and earn more: see in transcripts/ "
        "what they say again and again, and look for what pays for it",
    }
)
"""Alarms that need no second reward to be told: what each means, and what to try."""


def signs_at(rows: Iterable[Mapping[str, float]]) -> dict[str, list[int]]:
    """For each alarm of ``SIGNS`` that was given, the steps after which an evaluation gave it."""
    seen = list(rows)
    found = {sign: [int(row["step"]) for row in seen if row.get(sign)] for sign in SIGNS}
    return {sign: steps for sign, steps in found.items() if steps}


def sign_advice(sign: str, step: int) -> str:
    """A sentence on what an alarm of ``SIGNS`` means, and what to try."""
    return f"{sign} after step {step:,}: {SIGNS[sign]}"


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
    """What the monitors found, in a line, with a note where the newest evaluation has one; empty without a monitor."""
    watched = [row for row in rows if HACKING in row or COMPONENT in row]
    if not watched:
        return ""
    hacked = ", ".join(f"{step:,}" for step in hacked_at(watched))
    told = [f"reward hacking after step {hacked}"] if hacked else []
    told += [f"{sign} after step {', '.join(f'{at:,}' for at in steps)}" for sign, steps in signs_at(watched).items()]
    newest = watched[-1]
    learned = " Learned rewards are after scale and clip." if HACKING in newest else ""
    note = f" Note: {flat_advice(int(newest['step']))}." if newest.get(FLAT) else ""
    return f"Monitor: {'; '.join(told) or 'no alarm'} (evaluations: {len(watched):,}).{learned}{note}"
