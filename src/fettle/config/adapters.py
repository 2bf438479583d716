"""Environments of other packages: their tasks and their scores, played as our own."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from fettle.config.rewards import Rewarded
from fettle.config.sandbox import SandboxSettings


class Verifiers(Rewarded):
    """Tasks of an installed taskset of the verifiers package, scored by its own rewards."""

    type: Literal["verifiers"] = "verifiers"
    taskset: Annotated[str, Field(min_length=1)]
    """The installed package that exports the taskset."""
    settings: Mapping[str, JsonValue] = {}
    """The taskset's own settings."""
    scoring: Literal["sandbox", "here"] = "sandbox"
    """Where its rewards read replies. ``here``, in this process, is for those that reach out, such as judges."""
    sandbox: SandboxSettings = SandboxSettings(memory_mib=2048)
    """Where ``scoring: sandbox`` works; ``seconds`` are those of one reply."""
    most: Annotated[int, Field(ge=2)] = 100_000
    """Tasks that are read of a taskset that has more, or that never ends."""
    system: str | None = None
    """System message before each task that brings none; null for none."""
    seed: int = 0
    """Seed of the order and of the split."""
    heldout: Annotated[int, Field(ge=1)] = 200
    """Tasks kept for evaluation; none of them, by content, is ever trained on."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training tasks, relative to other environments."""


class Gymnasium(Rewarded):
    """A Gymnasium environment that can be read and acted on in words."""

    type: Literal["gymnasium"] = "gymnasium"
    environment: Annotated[str, Field(min_length=1)]
    """Its id (``Taxi-v4``), or ``module:id`` where a module registers it."""
    settings: Mapping[str, JsonValue] = {}
    """Passed to it as they are (``map_name: 8x8``)."""
    actions: tuple[str, ...] = ()
    """What its actions are called, in their order; none: they are numbered."""
    instructions: str | None = None
    """Said before the first observation; null for nothing."""
    answer_in: Literal["tags", "text"] = "tags"
    """``tags`` takes as the action what stands in exactly one <answer>...</answer>; ``text`` takes the whole reply."""
    turns: Annotated[int, Field(ge=1)] = 50
    """Replies after which an episode is cut short."""
    illegal_cost: Annotated[float, Field(ge=0)] = 1.0
    """What a reply costs that is no action: no less than an action may cost, or none will be taken."""
    system: str | None = None
    """System message; null for none."""
    seed: int = 0
    """Seed of the tasks."""
    heldout: Annotated[int, Field(ge=1)] = 200
    """Beginnings kept for evaluation; none of them, by content, is ever trained on."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training tasks, relative to other environments."""


class OpenEnv(Rewarded):
    """An environment that an OpenEnv server holds, one session an episode."""

    type: Literal["openenv"] = "openenv"
    url: Annotated[str, Field(pattern=r"^wss?://[^\s/]+(/\S*)?$")]
    """The server's WebSocket (``ws://127.0.0.1:8000/ws``)."""
    reset: Mapping[str, JsonValue] = {}
    """Passed at each beginning, beside the seed."""
    action_field: Annotated[str, Field(min_length=1)] = "message"
    """Field of an action that the reply is put in."""
    action: Mapping[str, JsonValue] = {}
    """The action's other fields."""
    reply_as: Literal["text", "json"] = "text"
    """``json`` reads the reply as a value (a number, a list); ``text`` hands it on as it is."""
    observation_field: str | None = None
    """Field of an observation that is shown; null shows all of it, as JSON."""
    instructions: str | None = None
    """Said before the first observation; null for nothing."""
    answer_in: Literal["tags", "text"] = "tags"
    """``tags`` hands on what stands in exactly one <answer>...</answer>; ``text`` hands on the whole reply."""
    turns: Annotated[int, Field(ge=1)] = 50
    """Replies after which an episode is cut short."""
    illegal_cost: Annotated[float, Field(ge=0)] = 1.0
    """What a reply costs that is no action: no less than an action may cost, or none will be taken."""
    patience: Annotated[float, Field(gt=0)] = 60.0
    """Seconds for which a server that is full or away is asked again at the beginning of an episode."""
    call_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that one answer may take."""
    max_message_mib: Annotated[int, Field(ge=1, le=512)] = 16
    """Largest message of the server's."""
    system: str | None = None
    """System message; null for none."""
    seed: int = 0
    """Seed of the tasks."""
    heldout: Annotated[int, Field(ge=1)] = 200
    """Beginnings kept for evaluation; none of them, by content, is ever trained on."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training tasks, relative to other environments."""

    @model_validator(mode="after")
    def _one_place_each(self) -> "OpenEnv":
        if self.action_field in self.action:
            raise ValueError(f"action holds {self.action_field}, which is where the reply goes: take it out")
        if "seed" in self.reset:
            raise ValueError("reset holds seed, and each task has its own: take it out")
        return self


class Plugin(Rewarded):
    """An environment that an installed package brings, by the name it gives it."""

    type: Literal["plugin"] = "plugin"
    name: Annotated[str, Field(min_length=1)]
    """What the package calls it; ``fettle environments list`` names them."""
    settings: Mapping[str, JsonValue] = {}
    """The package's own settings of it."""
    system: str | None = None
    """System message before each question; null leaves it to the package."""
    seed: int = 0
    """Seed of the tasks."""
    heldout: Annotated[int, Field(ge=1)] = 200
    """Tasks kept for evaluation; none of them, by content, is ever trained on."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training tasks, relative to other environments."""
