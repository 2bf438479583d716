"""Settings of the Tinker API to ours."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from fettle.config import AdamW, Frozen, LoRA, SamplingParams
from fettle.errors import ConfigError
from fettle.service.faces.tinker import bodies

ALPHA = 32.0
"""Fixed by the Tinker API; an adapter's update is scaled by alpha / rank."""

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")

Settings = TypeVar("Settings", bound=Frozen)


def lora_of(body: bodies.LoraConfig) -> LoRA:
    """The adapter. ``train_unembed`` adds nothing: heads get no adapter here.

    Raises:
        ConfigError: a rank that cannot be, or nothing to be trained.
    """
    if not (body.train_mlp or body.train_attn):
        raise ConfigError("lora_config trains nothing: set train_mlp or train_attn (the head gets no adapter here)")
    if body.train_mlp and body.train_attn:
        targets: tuple[str, ...] = ("all-linear",)
    else:
        targets = MLP if body.train_mlp else ATTENTION
    return checked("lora_config", LoRA, rank=body.rank, alpha=ALPHA, targets=targets)


def adam_of(body: bodies.OptimStepBody) -> AdamW:
    """The step.

    Raises:
        ConfigError: it is another optimizer, or a number that cannot be.
    """
    given = body.optimizer_params
    if given is not None and given.get("type") != "adamw":
        raise ConfigError(f"optimizer_params name {given.get('type')!r}, and adamw is what there is")
    adam = body.adam_params or bodies.AdamParams()
    return checked(
        "adam_params",
        AdamW,
        # A rate of 0 moves the moments alone. Ours is above 0: the least number that is moves no float32 weight.
        learning_rate=adam.learning_rate or math.ulp(0.0),
        beta1=adam.beta1,
        beta2=adam.beta2,
        eps=adam.eps,
        weight_decay=adam.weight_decay,
        clip_norm=adam.grad_clip_norm or None,
    )


def sampling_of(body: bodies.Sampling, *, room: int, top: int, seed: str) -> SamplingParams:
    """How tokens are drawn; ``room`` is how many the context still holds, ``seed`` names the draw where none is given.

    Raises:
        ConfigError: a setting that cannot be.
    """
    stop = body.stop
    if body.top_k == 0 or body.top_k < -1:
        raise ConfigError(f"top_k is {body.top_k}: give the number of tokens, or -1 for no limit")
    texts = [stop] if isinstance(stop, str) else [each for each in stop or [] if isinstance(each, str)]
    if "" in texts:
        raise ConfigError("stop holds an empty text, which every completion begins with")
    return checked(
        "sampling_params",
        SamplingParams,
        max_tokens=min(body.max_tokens or room, room),
        temperature=body.temperature,
        top_k=max(body.top_k, 0),
        top_p=body.top_p,
        stop=tuple(texts),
        stop_token_ids=tuple(each for each in stop or () if isinstance(each, int)),
        end_tokens=stop is None,
        seed=number_of(seed) if body.seed is None else body.seed,
        top_logprobs=top,
    )


def number_of(name: str) -> int:
    """A number that goes with a name, and hardly with any other."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def texts(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    """What a user notes beside a thing, as texts."""
    return {name: str(value) for name, value in (metadata or {}).items()}


def checked(where: str, kind: type[Settings], **given: Any) -> Settings:
    """Settings of ours.

    Raises:
        ConfigError: one cannot be what it is.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in error.errors()]
        raise ConfigError(f"{where} cannot be: {'; '.join(wrong)}") from error
