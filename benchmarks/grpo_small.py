"""The whole GRPO step of the model of 17 million parameters."""

from benchmarks.grpo import compared
from benchmarks.harness import Outcome, Row, Settings, main
from benchmarks.machine import Floor

ROW = Row(
    name="grpo_small",
    work="the same step, 17 M",
    peer="TRL GRPOTrainer at the fastest of the settings tried",
    target=5.0,
)


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    return compared(settings, floor, size="small")


if __name__ == "__main__":
    main(ROW, measured)
