"""What is trained, how it is stepped, and how it is sampled."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from fettle.config.base import Frozen
from fettle.config.samplers import Samplers


class LoRA(Frozen):
    """Low-rank adapters beside frozen weights (Hu et al., 2021, arXiv:2106.09685)."""

    rank: Annotated[int, Field(ge=1)] = 16
    """Rank r of each update."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an adapter's inputs dropped while training. Of a prompt that is run once for several sequences (see
    ``engine.layout``), the same is dropped for all of them."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("all-linear",)
    """Names of the linear layers that get an adapter (``q_proj``, ...); ``all-linear`` is all but the head."""


class TinyModel(Frozen):
    """A Qwen3-architecture model of random weights, built in code together with its tokenizer."""

    type: Literal["tiny"] = "tiny"
    hidden: Annotated[int, Field(ge=16)] = 192
    """Width of the residual stream."""
    layers: Annotated[int, Field(ge=1)] = 3
    """Number of blocks."""
    heads: Annotated[int, Field(ge=1)] = 6
    """Attention heads; the width divides by it."""
    vocabulary: Annotated[int, Field(ge=300)] = 512
    """Tokens the tokenizer learns, the 256 bytes among them."""
    context: Annotated[int, Field(ge=32)] = 256
    """Longest sequence, in tokens."""
    rope_theta: Annotated[float, Field(gt=1)] = 100.0
    """The base of the rotations of positions. 100 suits sequences of up to some dozen tokens, over which a small head
    should tell places apart; where it should copy over some hundred tokens, 2 000 is learned sooner."""
    seed: int = 0
    """Seed of the random weights."""

    @model_validator(mode="after")
    def _width_divides(self) -> "TinyModel":
        if self.hidden % (2 * self.heads):
            raise ValueError(
                f"hidden is {self.hidden} and heads {self.heads}: the width must divide by twice the heads"
            )
        return self


class PolicySpec(Frozen):
    """One model to be trained."""

    model: str | TinyModel
    """A folder, a hub name, or a tiny model made on the spot."""
    lora: LoRA | None = None
    """Adapters beside frozen weights; absent means that all weights are trained."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the arithmetic. Trained weights and optimizer moments stay float32 in either."""
    quantization: Literal["int8", "nf4"] | None = None
    """Bits in which frozen weights are stored, beside adapters (QLoRA); null stores them in ``precision``."""
    head: Literal["value", "reward"] | None = None
    """A number that the last hidden state is made into: the worth of what stands so far, or the score of a reply."""
    seed: int = 0
    """Seed of the adapters' initial values and of dropout."""

    @model_validator(mode="after")
    def _only_frozen_weights_are_quantized(self) -> "PolicySpec":
        if self.quantization is not None and self.lora is None:
            raise ValueError(f"quantization is {self.quantization}, and whole weights are trained: set lora as well")
        return self


class AdamW(Frozen):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2017, arXiv:1711.05101)."""

    learning_rate: Annotated[float, Field(ge=0)] = 1e-5
    """Step size; a schedule multiplies it."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the second moment."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Each step multiplies the weights by 1 - learning_rate * weight_decay."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Gradients are scaled down to this global norm; null leaves them alone."""


class Constant(Frozen):
    """The peak learning rate throughout, after a linear warm-up."""

    type: Literal["constant"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the rate climbs from 0 to its peak."""


class Linear(Frozen):
    """A straight line from the peak to ``final`` of it, after a linear warm-up."""

    type: Literal["linear"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the rate climbs from 0 to its peak."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the peak at the last step."""


class Cosine(Frozen):
    """Half a cosine from the peak to ``final`` of it, after a linear warm-up."""

    type: Literal["cosine"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the rate climbs from 0 to its peak."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the peak at the last step."""


Schedule = Annotated[Constant | Linear | Cosine, Field(discriminator="type")]
"""How the learning rate changes over a run."""


class SamplingParams(Frozen):
    """How tokens are drawn."""

    max_tokens: Annotated[int, Field(ge=1)] = 256
    """Most tokens in one completion."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Logits are divided by it; 0 takes the likeliest token."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Only the k likeliest tokens may be drawn; 0 is no limit."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Only the likeliest tokens that together hold this probability may be drawn."""
    stop: tuple[str, ...] = ()
    """A completion ends with the token that completes one of these strings."""
    stop_token_ids: tuple[int, ...] = ()
    """A completion ends with one of these tokens, besides the model's own end tokens."""
    end_tokens: bool = True
    """Whether a completion ends with the model's own end tokens."""
    seed: int = 0
    """Draws depend on this and on the completion's index, and on nothing else in the batch."""
    untempered_logprobs: bool = False
    """Also return log-probabilities under the model's own distribution."""
    top_logprobs: Annotated[int, Field(ge=0, le=128)] = 0
    """Also return so many of the likeliest tokens at each place, with their log-probabilities."""
    continued: bool = False
    """Whether a prompt that goes on from this completion is to be expected: what was computed is kept for it."""


class TorchEngine(Frozen):
    """How models are run in a process that holds them."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """``auto`` takes a CUDA GPU where torch sees one, and else the CPU."""
    gpu_ids: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Which GPUs of this machine, as ``nvidia-smi`` numbers them; none: those that CUDA_VISIBLE_DEVICES names, or all.
    An engine in this process takes one, and processes that are launched together one each."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads for arithmetic; null leaves torch's choice. Bits repeat only for a fixed number."""
    train_tokens: Annotated[int, Field(ge=16)] = 16384
    """Most tokens, padding included, in one micro-batch; sequences of like length share one. On a CPU, where more are
    no faster, it is filled to 2 048 at most, or to what sequences that go together need."""
    sample_tokens: Annotated[int, Field(ge=16)] = 262144
    """Most tokens that the sampler's cache holds at once; further sequences wait for room."""
    sampling_threads: Annotated[int, Field(ge=1)] | None = None
    """A thread of its own for sampling, with so many threads for arithmetic, so that batches are drawn while the policy
    learns (with ``max_staleness`` above 0); null: sampling and learning take turns."""
    layout: Literal["auto", "packed", "padded"] = "auto"
    """``packed``: sequences end to end in one row, and a prompt that several of them begin with is run once;
    ``padded``: sequences of like length side by side; ``auto``: packed wherever the model's attention can be driven."""
    frozen_gib: Annotated[float, Field(gt=0)] = 16.0
    """Memory for models that are only read (references, reward models): beyond it the least recently used go."""

    @model_validator(mode="after")
    def _names_gpus(self) -> Self:
        if self.gpu_ids and self.device in ("cpu", "mps"):
            raise ValueError(f"gpu_ids names GPUs, and device is {self.device}: unset one of the two")
        if len(set(self.gpu_ids)) < len(self.gpu_ids):
            raise ValueError("gpu_ids names a GPU twice: name each once")
        return self


class LocalEngine(TorchEngine):
    """The engine in this process."""

    type: Literal["local"] = "local"

    @model_validator(mode="after")
    def _on_one(self) -> "LocalEngine":
        if len(self.gpu_ids) > 1:
            raise ValueError(
                f"gpu_ids names {len(self.gpu_ids)} GPUs, and one process computes on one: name one, or use "
                "type launched or ray"
            )
        return self


class RayEngine(TorchEngine):
    """The engine of a Ray cluster: ranks hold the same policies, and share out the data of every call.

    What is set for a model (``threads``, ``train_tokens`` and so on) holds for each rank.
    """

    type: Literal["ray"] = "ray"
    workers: Annotated[int, Field(ge=1)] = 1
    """How many ranks. One computes to the same bits as ``type: local``."""
    sharded: bool = False
    """Whether the layers of models are parted among the ranks (FSDP2), for models that no rank has room for: with
    their gradients and moments, where they are trained without ``policy.lora``. Adapters, embeddings and heads are
    whole on each."""
    address: str | None = None
    """Which cluster: ``auto``, the one that this machine is part of; ``host:port`` or ``ray://host:port``; null: one is
    started here for the run, and ended with it."""
    labels: Mapping[str, str] = {}
    """Labels of Ray of machines that may have ranks, as ``ray.io/node-group: trainers``; none: any."""
    start_seconds: Annotated[float, Field(gt=0)] = 120.0
    """Seconds in which the cluster must have room for all ranks, and they must have begun."""
    silent_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Seconds without a sign of life after which a rank is given up, and another takes its place."""
    repeated_seconds: Annotated[float, Field(gt=0)] = 60.0
    """About how many seconds of work are done again when a rank is lost: policies are written down that often."""
    samplers: Samplers | None = None
    """What samples beside the ranks, which only train then; null: the ranks sample too."""

    @model_validator(mode="after")
    def _in_step(self) -> "RayEngine":
        if self.gpu_ids and self.address is not None:
            raise ValueError(
                "gpu_ids names GPUs of this machine, and a cluster at an address hands out its own: unset one"
            )
        if self.sharded and self.sampling_threads is not None:
            raise ValueError("ranks that part models run them in step, and sampling_threads draws beside: unset one")
        return self


class LaunchedEngine(TorchEngine):
    """The engine of processes that torchrun or SLURM has started together, without Ray: ranks that hold the same
    policies, and share out the data of every call. The first carries out the recipe, and the others follow.
    """

    type: Literal["launched"] = "launched"
    sharded: bool = False
    """Whether the layers of models are parted among the processes: see ``RayEngine.sharded``."""
    start_seconds: Annotated[float, Field(gt=0)] = 120.0
    """Seconds in which all of them must have found each other."""

    @model_validator(mode="after")
    def _in_step(self) -> "LaunchedEngine":
        if self.sampling_threads is not None:
            raise ValueError("processes that are launched together run in step: unset sampling_threads")
        return self


class ServiceEngine(Frozen):
    """The engine of a training service, reached over HTTP."""

    type: Literal["service"] = "service"
    url: str
    """Where the service is: ``http://127.0.0.1:8700``."""
    key_env: str | None = None
    """The environment variable that holds the key; a recipe never holds it itself."""
    key_file: str | None = None
    """A file that holds the key and nothing else."""
    patience: Annotated[float, Field(gt=0)] = 300.0
    """Seconds for which a request without an answer is repeated: a service may be restarted in the middle of a run."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError("should be the service's address, such as http://127.0.0.1:8700")
        return url

    @model_validator(mode="after")
    def _one_key(self) -> "ServiceEngine":
        if self.key_env is not None and self.key_file is not None:
            raise ValueError("key_env and key_file are both given: the key is in one place")
        return self


BackendConfig = Annotated[LocalEngine | RayEngine, Field(discriminator="type")]
"""An engine that holds its models itself."""

EngineConfig = Annotated[LocalEngine | ServiceEngine | RayEngine | LaunchedEngine, Field(discriminator="type")]
