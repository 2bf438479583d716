"""A suite that never trains on what any suite of the recipe holds out."""

from collections.abc import Collection, Sequence

from fettle.environments.base import Environment, Suite
from fettle.errors import ConfigError
from fettle.randomness import key
from fettle.types import Message, Task

Prompt = tuple[Message, ...]

ATTEMPTS = 1000


class Sheltered:
    """Satisfies ``Suite``: another suite, whose training tasks leave out the ``heldout`` prompts of all."""

    def __init__(self, suite: Suite, heldout: Collection[Prompt]) -> None:
        self.name = suite.name
        self._suite = suite
        self._heldout = heldout

    def training_task(self, index: int) -> Task:
        """The suite's own task, or, where some suite holds that out, one from another place, the same each time.

        Raises:
            ConfigError: nearly everything there is, is held out.
        """
        for attempt in range(ATTEMPTS):
            task = self._suite.training_task(key("sheltered", index, attempt) if attempt else index)
            if task.prompt not in self._heldout:
                return task
        raise ConfigError(f"nearly all tasks of {self.name} are held out by an environment: lower its heldout")

    def heldout_tasks(self) -> Sequence[Task]:
        """The suite's own."""
        return self._suite.heldout_tasks()

    def environment(self) -> Environment:
        """The suite's own."""
        return self._suite.environment()
