"""The training step at prompts of 512 tokens and completions of 64."""

from benchmarks.harness import Outcome, Row, Settings, main
from benchmarks.machine import Floor
from benchmarks.training_step import stepped

ROW = Row(
    name="training_step_long",
    work="training step at prompts of 512 tokens, completions of 64, groups of 8",
    peer="TRL's layout, as above",
    target=3.5,
)


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    return stepped(settings, floor, long=True)


if __name__ == "__main__":
    main(ROW, measured)
