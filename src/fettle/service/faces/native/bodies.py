"""What may be said to this face."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from fettle.calls import call_of
from fettle.config import AdamW, LoRA, SamplingParams
from fettle.engine.base import Pooling
from fettle.service.faces.native.data import data_of
from fettle.service.said import Body

Id = Annotated[str, Field(min_length=1, max_length=200)]
Line = Annotated[str, Field(max_length=500)]
Metadata = Annotated[dict[Line, Line], Field(max_length=64)]
Token = Annotated[int, Field(ge=0, lt=2**31)]
Text = Annotated[str, Field(max_length=4_000_000)]
Prompt = Text | list[Token]
"""A text, or tokens."""
Temperature = Annotated[float, Field(ge=1e-6, le=1e6)]
"""Of a reading, which divides by it."""
Seq = Annotated[int, Field(ge=0, lt=2**53)]


class NewRun(Body):
    """A run to be begun: from a served model, or from a checkpoint."""

    base_model: Line | None = None
    """The name of a served model, or a checkpoint's address (``fettle://...``), to begin from as a model."""
    checkpoint: Line | None = None
    """The id or address of a checkpoint to go on from, in the place of ``base_model``."""
    optimizer: bool = True
    """With ``checkpoint``: whether its optimizer is taken up as well, so that training goes on to the same bits."""
    lora: LoRA | None = None
    """Adapters beside frozen weights; null trains all weights."""
    head: Literal["value", "reward"] | None = None
    """A number made of the last hidden state: what losses with a critic, or reward models, need."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the arithmetic."""
    quantization: Literal["int8", "nf4"] | None = None
    """Bits in which frozen weights are held, beside adapters."""
    seed: int = 0
    """Of the adapters' initial values and of dropout."""
    id: Id | None = None
    """The caller's own id of the run, by which the same request is known again; null makes one."""
    name: Line = ""
    """What people call it."""
    metadata: Metadata = Field(default_factory=dict)
    """Anything its owner wants to keep with it."""
    session: Line = ""
    """The session that it belongs to."""


class Numbered(Body):
    """An operation's place among those of its run."""

    incarnation: Seq | None = None
    """The number of the run's holder, as ``attach`` gave it; null: whoever it is now."""
    seq: Seq | None = None
    """The operation's number. The same number and contents again are the same operation, carried out once; null: the
    next free number, and every request is another operation."""


class Operation(Numbered):
    """Any call of a run."""

    incarnation: Seq
    """The number of the run's holder."""
    seq: Seq
    """The operation's number; they begin at 0 and have no gaps."""
    call: Annotated[dict[str, Any], AfterValidator(call_of)]
    """The call with its ``type``: ``forward``, ``forward_backward``, ``optim_step``, ``undo``, ``pin``, ``save``,
    ``restore`` or ``close``."""


class Batch(Numbered):
    """Data and a loss: as ``data`` and ``loss``, or as ``batch_data``, ``loss_fn`` and ``loss_kwargs``."""

    data: Annotated[Any, AfterValidator(data_of)] = None
    """A ragged batch (``tokens``, ``offsets``, ``loss_mask``, ``streams``), or a list of data, each with ``tokens`` and
    what goes with them."""
    loss: dict[str, Any] | None = None
    """A loss with its ``type`` and settings."""
    batch_data: Any = None
    """Columns by name (``input_ids``, ``labels``, ...), rows of equal length."""
    loss_fn: Line | None = None
    """The name of a documented loss."""
    loss_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Its settings."""
    accumulate: Literal[True] = True
    """Gradients add up until ``optim_step``; nothing else is done here."""


class Step(Numbered):
    """A step of the optimizer."""

    optimizer: AdamW | None = None
    """Its settings; null: those of AdamW here."""
    learning_rate: Annotated[float, Field(ge=0)] | None = None
    """In the place of the optimizer's own."""
    empty: bool = False
    """Whether a step without gradients is one with gradients of zero; otherwise it is refused."""


class Acknowledgements(Body):
    """Answers that were read."""

    ids: Annotated[list[Line], Field(max_length=1000)]
    """Of their promises."""


class SaveState(Numbered):
    """A checkpoint to be saved."""

    name: Id
    """Its name within the run."""
    optimizer: bool = True
    """Whether training can go on from it to the same bits; without, it is for sampling."""
    ttl_seconds: Annotated[float, Field(gt=0, le=3_153_600_000)] | None = None
    """How long it is kept; null: for good."""
    overwrite: bool = False
    """Whether one of that name is replaced."""
    metadata: Metadata = Field(default_factory=dict)
    """Anything its owner wants to keep with it."""


class LoadState(Numbered):
    """A checkpoint to be taken up in place."""

    checkpoint: Line
    """Its id or address."""
    optimizer: bool = True
    """Whether its optimizer is taken up as well."""


class SamplerOfRun(Numbered):
    """The weights of a run as they are after every operation before."""


class SampleRun(Numbered):
    """Completions to be drawn from a run's weights as they are after every operation before."""

    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=1024)]
    """Texts, or tokens."""
    n: Annotated[int, Field(ge=1, le=1024)] = 1
    """Completions of each."""
    params: SamplingParams = SamplingParams()
    """How they are drawn."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """In the place of that of ``params``."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """In the place of that of ``params``."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """In the place of that of ``params``."""
    return_logprobs: bool = True
    """Whether the answer tells log-probabilities."""


class NewSampler(Body):
    """A sampler of one of four things."""

    model: Line | None = None
    """A served model."""
    checkpoint: Line | None = None
    """A checkpoint, by its id or address."""
    run_id: Line | None = None
    """A run, as it is now."""
    pin: Line | None = None
    """A run as it was at an operation ``pin``, by that operation's id."""
    id: Id | None = None
    """The caller's own id of the sampler; null makes one."""
    session: Line = ""
    """The session that it belongs to: it is let go at its end."""


class Drawing(Body):
    """Completions of one prompt."""

    prompt: Prompt
    """A text, or tokens."""
    n: Annotated[int, Field(ge=1, le=1024)] = 1
    """How many."""
    params: SamplingParams = SamplingParams()
    """How they are drawn."""


class Sample(Body):
    """Completions to be drawn."""

    requests: Annotated[list[Drawing], Field(min_length=1, max_length=4096)]
    """A prompt each."""
    key: Id | None = None
    """The caller's own name of this draw: the same key and contents again are drawn once; null: drawn anew."""


class Sequences(Body):
    """Sequences to be read."""

    sequences: Annotated[list[Prompt], Field(min_length=1, max_length=4096)]
    """Texts, or tokens."""


class Logprobs(Sequences):
    """Sequences whose log-probabilities are asked for."""

    temperature: Temperature = 1.0
    """At which they are taken."""


class Embed(Sequences):
    """Sequences whose hidden states are asked for."""

    layer: Annotated[int, Field(ge=-1024, le=1024)] = -1
    """Which layer's; 0 is the embeddings, -1 the last."""
    pooling: Pooling = "mean"
    """How the states of a sequence become one."""


class Reading(Body):
    """What is asked about one sequence."""

    tokens: Prompt
    """A text, or tokens."""
    top: Annotated[int, Field(ge=0, le=128)] = 0
    """How many of the likeliest tokens at each place."""
    targets: Any = None
    """[T][K]: tokens whose log-probabilities are asked for at each place; -1 asks nothing."""
    draws: Annotated[int, Field(ge=0, le=128)] = 0
    """How many tokens to draw at each place."""
    temperature: Temperature = 1.0
    """At which they are drawn."""
    seed: int = 0
    """Of the draws."""


class Read(Body):
    """Sequences to be read place by place."""

    requests: Annotated[list[Reading], Field(min_length=1, max_length=4096)]


class TTL(Body):
    """How long a checkpoint is kept."""

    ttl_seconds: Annotated[float, Field(gt=0, le=3_153_600_000)] | None
    """From now on; null: for good."""


class Rows(Body):
    """Metrics of a client's own."""

    rows: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10_000)]
    """One object a step, with its ``step`` and numbers by name."""


class Episodes(Body):
    """Episodes that a client tells of."""

    episodes: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10_000)]
    """One object each, with its ``step``, ``messages`` and ``reward``."""


class OfModel(Body):
    """Something that a model's tokenizer does."""

    model: Line | None = None
    """A served model; null: the first."""


class Tokenize(OfModel):
    """Texts to tokens."""

    text: Text | Annotated[list[Text], Field(max_length=4096)]
    """One, or several."""


class Detokenize(OfModel):
    """Tokens to texts."""

    tokens: list[Token] | list[list[Token]]
    """One sequence, or several."""
    skip_special_tokens: bool = False
    """Whether special tokens are left out."""


class Message(Body):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text


class ChatTemplate(OfModel):
    """A conversation as a model's template writes it."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    """The turns so far."""
    add_generation_prompt: bool = True
    """Whether it goes on to where the assistant speaks."""


class Embeddings(OfModel):
    """Texts to vectors."""

    texts: Annotated[list[str], Field(min_length=1, max_length=128)] | None = None
    """The texts."""
    input: str | Annotated[list[str], Field(min_length=1, max_length=128)] | None = None
    """The same, as OpenAI's clients say it."""
    encoding_format: Literal["float", "base64"] = "float"
    """Taken from OpenAI's clients; vectors are always numbers."""
    sampler: Line | None = None
    """A sampler whose weights are read in the place of a served model's."""
    layer: Annotated[int, Field(ge=-1024, le=1024)] = -1
    """Which layer's states; 0 is the embeddings, -1 the last."""
    pooling: Pooling = "mean"
    """How the states of a text become one."""
