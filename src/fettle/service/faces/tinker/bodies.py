"""What Tinker clients send in JSON. Unknown fields are passed over: each version of the SDK has a few more."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[float, Field(allow_inf_nan=False)]
MOST_SEQ = 2**53 - 1
Seq = Annotated[int, Field(ge=1, le=MOST_SEQ, strict=True)]
"""Clients number the requests of a model from 1."""
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Body(BaseModel):
    """One request."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class CreateSession(Body):
    """A client begins."""

    tags: list[str] = []
    user_metadata: dict[str, Any] | None = None
    sdk_version: str = ""
    display_name: str | None = None


class SessionOnly(Body):
    """Something about a session."""

    session_id: Name


class FinishReason(Body):
    """How a client came to its end."""

    type: str = "success"


class FinishSession(Body):
    """A client ends."""

    reason: FinishReason = FinishReason()
    detail: str | None = None


class LoraConfig(Body):
    """The adapter of a new model."""

    rank: int = 32
    seed: int | None = None
    train_unembed: bool = True
    train_mlp: bool = True
    train_attn: bool = True


class OptimizerConfig(Body):
    """The optimizer of a new model."""

    type: str = "adamw"


class CreateModel(Body):
    """A new model."""

    session_id: Name
    model_seq_id: Annotated[int, Field(ge=0)]
    base_model: Name
    lora_config: LoraConfig | None = None
    optimizer_config: OptimizerConfig = OptimizerConfig()
    user_metadata: dict[str, Any] | None = None


class ModelOnly(Body):
    """Something about a model."""

    model_id: Name


class AdamParams(Body):
    """One step of AdamW; ``grad_clip_norm`` 0 is no clip."""

    learning_rate: Number = 1e-4
    beta1: Number = 0.9
    beta2: Number = 0.95
    eps: Number = 1e-12
    weight_decay: Number = 0.0
    grad_clip_norm: Number = 0.0


class Numbered(Body):
    """A request that has its place among those of one model."""

    model_id: Name
    seq_id: Seq | None = None


class OptimStepBody(Numbered):
    """One step."""

    adam_params: AdamParams | None = None
    optimizer_params: dict[str, Any] | None = None


class SaveWeights(Numbered):
    """A checkpoint."""

    path: str | None = None
    ttl_seconds: Annotated[int, Field(ge=1)] | None = None
    overwrite: bool = False
    user_metadata: dict[str, Any] | None = None


class SaveForSampler(SaveWeights):
    """A checkpoint to sample from; with ``sampling_session_seq_id``, one that needs no name."""

    sampling_session_seq_id: Annotated[int, Field(ge=0)] | None = None


class LoadWeights(Body):
    """A checkpoint to go on from: ``model_id`` takes it up in place, ``session_id`` makes a new model."""

    path: Name
    optimizer: bool = False
    model_id: str | None = None
    seq_id: Seq | None = None
    session_id: str | None = None
    model_seq_id: Annotated[int, Field(ge=0)] | None = None
    base_model: str | None = None
    user_metadata: dict[str, Any] | None = None


class CreateSamplingSession(Body):
    """A sampler."""

    session_id: Name
    sampling_session_seq_id: Annotated[int, Field(ge=0)]
    base_model: str | None = None
    model_path: str | None = None


class SamplingSessionOnly(Body):
    """Something about a sampler."""

    sampling_session_id: Name


Stop = TypeVar("Stop")
Stops = Annotated[list[Stop], Field(max_length=1024)]


class Prompt(Body):
    """Tokens, in chunks."""

    chunks: Annotated[list[dict[str, Any]], Field(max_length=65_536)]


class Sampling(Body):
    """How tokens are drawn; ``stop`` None ends with the model's end tokens, an empty list never."""

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    stop: str | Stops[str] | Stops[Annotated[int, Field(ge=0)]] | None = None
    temperature: Annotated[Number, Field(ge=0)] = 1.0
    top_k: int = -1
    top_p: Annotated[Number, Field(gt=0, le=1)] = 1.0


class SampleBody(Body):
    """A sample."""

    sampling_session_id: Name
    seq_id: Annotated[int, Field(ge=0, lt=2**63)]
    prompt: Prompt
    num_samples: Annotated[int, Field(ge=1, le=4096)] = 1
    sampling_params: Sampling = Sampling()
    prompt_logprobs: bool | None = None
    prompt_logprobs_last_n: Annotated[int, Field(ge=1)] | None = None
    topk_prompt_logprobs: Annotated[int, Field(ge=0, le=128)] = 0
    topk_sample_logprobs: Annotated[int, Field(ge=0, le=128)] = 0
    target_prompt_logprobs: dict[str, Any] | None = None
    prompt_alt_tokens_k: Annotated[int, Field(ge=0, le=128)] = 0


class RequestOnly(Body):
    """Something about a request."""

    request_id: Annotated[str, Field(min_length=1)]


class Target(Body):
    """Whose completions are polled."""

    type: Literal["sampling_session"] = "sampling_session"
    sampling_session_id: str
    cloned_sampler_id: Annotated[int, Field(ge=0, lt=2**32)] = 0


class RetrieveFutures(Body):
    """A poll for completions; ``timeout`` 0 does not wait."""

    target: Target
    prev_cursor: int = 0
    timeout: Annotated[float, Field(ge=0)] | None = None
    retrieved_request_ids: list[str] = []


class TinkerPath(Body):
    """Something about a checkpoint."""

    tinker_path: Name


class Ttl(Body):
    """How long a checkpoint is kept."""

    ttl_seconds: int | None = None
