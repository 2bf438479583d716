"""Messages, observations and rewards; what an environment is; and a language model as one."""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fettle import types
from fettle.chat import Template
from fettle.errors import ModelError

Role = Literal["system", "user", "assistant", "tool", "environment"]

TRANSCRIPT = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""How a conversation is written for a tokenizer that brings no chat template."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; chat templates read what the ``environment`` says as the user's."""

    role: Role
    content: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """What the policy sees: after ``reset`` the conversation so far, after ``step`` what is new in it."""

    messages: Sequence[Message] = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    done: bool = False
    """The episode is over: terminated, and not cut short by a limit."""
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reward:
    """What an action earned, and the named parts of which it is the sum."""

    value: float
    components: Mapping[str, float] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)


class BaseEnvironment(Protocol):
    """Where episodes happen. Any class with these two methods is one.

    An episode goes on in a copy of the environment, so that many go on at once and what one does is not seen by
    another: what an environment holds must be what ``copy.deepcopy`` copies.
    """

    def reset(self) -> Observation:
        """Begin an episode; each may ask something else."""
        ...

    def step(self, action: Message) -> tuple[Observation, Reward]:
        """Take what the policy said."""
        ...


class EnvironmentMode(enum.Enum):
    """Whether a language model is trained. The words say nothing about who serves whom over a network."""

    SERVER = "server"
    """Its weights are trained."""
    CLIENT = "client"
    """Its weights are frozen."""


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How replies are drawn, in training and out of it: always from the whole distribution."""

    max_new_tokens: int = 256
    temperature: float = 1.0


class LLMEnvironment:
    """A model and its tokenizer: a policy to be trained, or, as an environment, somebody to talk to."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        mode: EnvironmentMode = EnvironmentMode.CLIENT,
        generation_config: GenerationConfig | None = None,
        reward_fn: Callable[[str], float] | None = None,
        system_prompt: str | None = None,
    ) -> None:
        """``reward_fn`` says what a reply of this model earns when it is spoken to.

        Raises:
            ModelError: the model is no plain transformers model, or the tokenizer's chat template cannot be used.
        """
        if not isinstance(model, PreTrainedModel):
            raise ModelError(
                f"LLMEnvironment was given a {type(model).__name__}: give the transformers model itself, with adapters "
                "merged"
            )
        if not tokenizer.chat_template:
            tokenizer.chat_template = TRANSCRIPT
        self.model = model
        self.tokenizer = tokenizer
        self.template = Template(tokenizer)
        self.generation_config = generation_config or GenerationConfig()
        self.system_prompt = system_prompt
        self._reward_fn = reward_fn
        self._trainable = [p for p in model.parameters() if p.requires_grad]
        self._said: list[types.Message] = []
        self.set_mode(mode)

    @property
    def mode(self) -> EnvironmentMode:
        """Whether the model is trained."""
        return self._mode

    def set_mode(self, mode: EnvironmentMode) -> None:
        """Freeze the model, or let those of its weights be trained that were when it came here."""
        self._mode = mode
        for parameter in self._trainable:
            parameter.requires_grad_(mode is EnvironmentMode.SERVER)

    def reset(self) -> Observation:
        """Begin a conversation; there is nothing to see before something is said."""
        self._said = opening(self.system_prompt)
        return Observation()

    def step(self, action: Message) -> tuple[Observation, Reward]:
        """Say something to the model; what it answers, and what ``reward_fn`` says of that."""
        self._said.append(plain(action))
        tokens = self.template.prompt(self._said)
        reply = self.template.reply(self._drawn(tokens))
        self._said.append(reply)
        value = self._reward_fn(reply.content) if self._reward_fn is not None else 0.0
        return Observation([Message("assistant", reply.content)]), Reward(value)

    def __deepcopy__(self, memo: dict[int, object]) -> "LLMEnvironment":
        """Another conversation with the same model."""
        copied = object.__new__(LLMEnvironment)
        copied.__dict__ = {**self.__dict__, "_said": list(self._said)}
        return copied

    @torch.no_grad()
    def _drawn(self, tokens: Sequence[int]) -> list[int]:
        prompt = torch.tensor([list(tokens)], device=self.model.device)
        drawn = self.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=self.generation_config.temperature > 0,
            temperature=self.generation_config.temperature or None,
            top_k=0,
            top_p=1.0,
            max_new_tokens=self.generation_config.max_new_tokens,
            eos_token_id=sorted(self.template.end_token_ids),
            pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
        )
        said: list[int] = drawn[0, len(tokens) :].tolist()
        return said


def plain(message: Message) -> types.Message:
    """The message as chat templates know it."""
    return types.Message("user" if message.role == "environment" else message.role, message.content)


def opening(system_prompt: str | None) -> list[types.Message]:
    """What stands before anything is said."""
    return [] if system_prompt is None else [types.Message("system", system_prompt)]
