"""Rollouts at prompts of 512 tokens."""

from benchmarks.harness import Outcome, Row, Settings, main
from benchmarks.machine import Floor
from benchmarks.rollouts import sampled
from benchmarks.workload import workload

ROW = Row(
    name="rollouts_long",
    work="the same at prompts of 512 tokens",
    peer="transformers generate, flat left-padded batch",
    target=6.0,
)


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    return sampled(settings, floor, workload(settings, long=True), continuous=False)


if __name__ == "__main__":
    main(ROW, measured)
