"""Where a mean of a few runs may lie."""

import math
from collections.abc import Sequence

import numpy as np

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""The quantile of Student's t at 0.975, by degrees of freedom from 1: of an interval that leaves 2.5 % on either side.
Beyond the table its last is taken, which is a little too wide."""


def students_interval(means: Sequence[float]) -> tuple[float, float, float]:
    """The mean of what each seed came to, and Student's 95 % interval around it."""
    t = T_975[min(len(means) - 1, len(T_975)) - 1]
    mean, half = float(np.mean(means)), t * float(np.std(means, ddof=1)) / math.sqrt(len(means))
    return mean, mean - half, mean + half
