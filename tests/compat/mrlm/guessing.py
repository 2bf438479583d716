"""An environment of one's own, as a user of the documented names writes it."""

from fettle.compat.mrlm.core import BaseEnvironment, Message, Observation, Reward


class Guessing(BaseEnvironment):
    """Counts what it is told; three turns."""

    def __init__(self) -> None:
        self.told = 0

    def reset(self) -> Observation:
        self.told = 0
        return Observation([Message("user", "guess")])

    def step(self, action: Message) -> tuple[Observation, Reward]:
        self.told += 1
        reward = Reward(1.5, {"turn": 1.0, "courtesy": 0.5})
        return Observation([Message("environment", f"told {self.told}")], done=self.told == 3), reward
