"""What is to be watched where decisions that begin a task get more of the credit (HICRA), by its documented names."""

import numpy as np

from fettle.router.episodes import Rollout


def successes(rollout: Rollout) -> int:
    """How many of the episodes that ended earned more than nothing."""
    return int((rollout.episode_returns > 0).sum()) if rollout.truncated.any() else 0


def watched(rollout: Rollout, succeeded: int) -> dict[str, float]:
    """The share of rewards that planning decisions earned, how many decisions there are for each, and the successes.

    Rewards count by their size: those of both signs would else make a share of anything, or of nothing.
    """
    sizes, planning = np.abs(rollout.rewards), rollout.planning > 0
    total, begun = float(sizes.sum()), float(planning.sum())
    return {
        "hicra_planner_reward_ratio": float(sizes[planning].sum()) / total if total else 0.0,
        "hicra_depth": planning.size / begun if begun else float(planning.size),
        "hicra_success_total": float(succeeded),
    }
