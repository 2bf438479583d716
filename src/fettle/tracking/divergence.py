"""What a run says of how far its policy is from another: which metric, and what it is called, its estimator with it."""

from collections.abc import Mapping

DIVERGENCES = (
    ("policy/kl", "KL k3", "from the reference"),
    ("policy/kl_k3", "KL k3", "from the reference"),
    ("policy/kl_sampler", "sampler KL k3", "from what drew the tokens"),
)
"""Metric, name on a line, and from what it is measured; the most telling first."""


def divergence(row: Mapping[str, float]) -> tuple[str, str, float] | None:
    """The name, the origin and the value, in nats a token, of the most telling one that the row has."""
    return next(((name, origin, row[metric]) for metric, name, origin in DIVERGENCES if metric in row), None)
