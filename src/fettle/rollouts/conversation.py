"""One player's side of an episode, token-in and token-out: what was sampled is what will be trained on."""

import time
from collections.abc import Callable, Mapping, Sequence

from fettle.chat import Template
from fettle.config import Limits, SamplingParams
from fettle.engine import Sampler
from fettle.environments import Observation
from fettle.errors import ContextError, DataError, EnvironmentFault, ModelError
from fettle.randomness import key
from fettle.types import Ending, Message, Task, Trajectory, Turn


class Conversation:
    """What a player has seen, said and earned. Nothing in it is ever re-tokenised.

    ``params.seed`` names the episode; each turn draws from a seed of its own.
    """

    def __init__(
        self,
        task: Task,
        first: Observation,
        *,
        sampler: Sampler,
        template: Template,
        params: SamplingParams,
        limits: Limits,
    ) -> None:
        self.messages: list[Message] = list(first.messages)
        self.measured: dict[str, float] = {}
        self._task = task
        self._sampler, self._template, self._params, self._limits = sampler, template, params, limits
        self._tools = first.tools
        self._one_reply = first.one_reply
        self._began = time.monotonic()
        self._history: list[int] = []
        self._new: list[int] = []
        if self.messages:  # who acts later may be told something first
            self._new = _written(lambda: template.prompt(self.messages, self._tools))
        self._turns: list[Turn] = []
        self._heard = False
        self._filled = False
        self._early = 0.0
        self._components: dict[str, float] = {}

    @property
    def drawn(self) -> int:
        """Tokens that the player has drawn."""
        return sum(len(turn.completion.tokens) for turn in self._turns)

    @property
    def reward(self) -> float:
        """What the player has earned."""
        return sum(turn.reward for turn in self._turns)

    @property
    def spoke(self) -> bool:
        """Whether the player has said anything."""
        return bool(self._turns)

    def limit(self) -> Ending:
        """The limit that leaves no room for another turn, if there is one."""
        limits = self._limits
        if len(self._turns) >= limits.turns:
            return "turns"
        if limits.tokens is not None and self.drawn >= limits.tokens:
            return "tokens"
        if limits.seconds is not None and time.monotonic() - self._began >= limits.seconds:
            return "seconds"
        return ""

    async def reply(self) -> Message | None:
        """What the player says next; None where its context has no room for that.

        Raises:
            ModelError: the sampler failed, or the task alone fills the context.
        """
        if not self._new and not self._turns:
            raise EnvironmentFault("a player is to speak that was told nothing: let it see a message first")
        self._history += self._new
        drawing = self._drawing()
        try:
            completion = (await self._sampler.sample(self._history, 1, drawing))[0]
        except ContextError as error:
            if self._turns or self._heard:
                return None
            raise self._named(error) from error
        except ModelError as error:
            raise self._named(error) from error
        self._filled = completion.stop_reason == "length" and len(completion.tokens) < drawing.max_tokens
        self._turns.append(Turn(self._new, completion, self._early))
        self._early = 0.0
        said = self._template.reply(completion.tokens, self._tools, turn=len(self._turns) - 1)
        self.messages.append(said)
        return said

    def earned(self, components: Mapping[str, float]) -> None:
        """The last turn was paid, part by part; what is paid before the first one is the first one's."""
        if not self._turns:
            self._early += sum(components.values())
        elif components:
            last = self._turns[-1]
            self._turns[-1] = Turn(last.observation, last.completion, last.reward + sum(components.values()))
        for name, value in components.items():
            self._components[name] = self._components.get(name, 0.0) + value

    def heard(self, messages: Sequence[Message]) -> None:
        """Something new was said to the player, whose turn it is next."""
        self.messages += messages
        self._heard = True
        if not self._turns:
            self._new = _written(lambda: self._template.prompt(self.messages, self._tools))
            return
        said = self._turns[-1].completion.tokens
        self._new = _written(lambda: self._template.continuation(said, messages))
        self._history += said

    def trajectory(self, *, group: str, ending: Ending, player: str = "") -> Trajectory:
        """The episode as it stands, cut short by ``ending``, or by the limit at which its last reply was cut."""
        cut = ending
        if not cut and self._turns[-1].completion.stop_reason == "length":
            cut = "context" if self._filled else "tokens"
        return Trajectory(
            task=self._task,
            turns=tuple(self._turns),
            messages=tuple(self.messages),
            terminated=not cut,
            truncated=bool(cut),
            components=self._components,
            temperature=self._params.temperature,
            group=group,
            measured=self.measured,
            ending=cut,
            player=player,
        )

    def _drawing(self) -> SamplingParams:
        seed = key(self._params.seed, "turn", len(self._turns))
        left = self._params.max_tokens
        if self._limits.tokens is not None:
            left = min(left, self._limits.tokens - self.drawn)
        return self._params.model_copy(update={"seed": seed, "max_tokens": left, "continued": not self._one_reply})

    def _named(self, error: ModelError) -> ModelError:
        task = self._task
        begins = task.prompt[-1].content[:60] if task.prompt else ""
        return type(error)(f"task {task.id} of {task.source}, which begins {begins!r}: {error.message}")


def _written(write: Callable[[], list[int]]) -> list[int]:
    """What a template writes of what was said.

    Raises:
        EnvironmentFault: it refuses that.
    """
    try:
        return write()
    except DataError as error:
        raise EnvironmentFault(error.message) from error
