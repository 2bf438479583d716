"""A server of OpenEnv's own, with an environment that breaks on request. Run as a process of its own."""

import socket
import sys

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app


class Guess(Action):
    message: str | int


class Seen(Observation):
    shown: str


class Hidden(Environment):
    """A number is to be found by halving."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self.number = 0
        self.tries = 0

    def reset(self, seed=None, episode_id=None, **kwargs):
        self.number, self.tries = (seed or 0) % 1000, 0
        return Seen(shown=f"It ends with {self.number % 100}. What is it, between 0 and 999?")

    def step(self, action, timeout_s=None, **kwargs):
        self.tries += 1
        said = str(action.message)
        if said == "break":
            raise RuntimeError("the world is out of order")
        if said == "nan":
            return Seen(shown="nan", reward=float("nan"))
        if not said.isdigit():
            return Seen(shown="A number, please.", reward=-0.5)
        found = int(said) == self.number
        return Seen(shown="higher" if int(said) < self.number else "lower", reward=found, done=found)

    @property
    def state(self):
        return State(step_count=self.tries)


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    app = create_fastapi_app(Hidden, Guess, Seen, max_concurrent_envs=int(sys.argv[1]))
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])
