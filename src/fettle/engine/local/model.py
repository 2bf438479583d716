"""A causal language model as the engine uses it: hidden states and head apart, limits known."""

import json
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, RLock
from typing import Any, Literal

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fettle.engine.local import checkpoint
from fettle.engine.local.asked import asked_logprobs
from fettle.engine.local.attention import attending
from fettle.engine.local.flat import lay_out
from fettle.engine.local.head import Head, has_head
from fettle.engine.local.layout import Laid
from fettle.engine.local.logprobs import logprobs_of_logits, token_logprobs
from fettle.engine.local.lora import ADAPTER_CONFIG, Slots, merge_adapter, read_layout
from fettle.engine.local.positions import steady_length
from fettle.engine.local.quantized import Quantization, quantize, rounded
from fettle.errors import LossInputError, ModelError

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

OFTEN = 1.5
"""How many targets a computed token must have for its logits to be made once for all of them, and again backwards."""

LOADING = Lock()
"""Held while transformers loads: it changes torch's default type for the whole process, and puts it back."""

Precision = Literal["float32", "bfloat16"]


@dataclass(slots=True)
class LanguageModel:
    """One set of weights, with the slots in which adapters are put."""

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str
    precision: Precision
    slots: Slots
    context: int
    """Longest sequence, in tokens."""
    vocabulary: int
    end_token_ids: frozenset[int]
    head_is_one_matrix: bool
    """Whether logits are ``hidden @ W.T + b`` and nothing else, so that they can be made in chunks."""
    packed: bool = False
    """Whether sequences are run as trees in one row, rather than side by side."""
    head: Head | None = None
    """The head that was saved with these weights, if they are frozen."""
    turn: RLock = field(default_factory=RLock)
    """Held by whoever runs the modules: their hooks and what stands in their parameters are one thread's at a time."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.module.device
        return device

    @property
    def steady(self) -> int | None:
        """Tokens beyond which a sequence is not padded beside shorter ones: see ``positions.steady_length``."""
        return steady_length(self.module.config)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """By name; tied weights once."""
        return dict(self.module.named_parameters())

    def arithmetic(self) -> AbstractContextManager[object]:
        """Autocast where bfloat16 is asked of float32 weights."""
        dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        return torch.autocast(self.device.type, dtype, enabled=self.precision == "bfloat16")

    def outputs(
        self,
        laid: Laid,
        targets: Tensor,
        wanted: Tensor,
        temperature: Tensor,
        *,
        read: Collection[str] = ("logprobs",),
        head: Head | None = None,
        lengths: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """What the model says of tokens, zero where nothing is wanted.

        Args:
            laid: how these sequences are run: each at least to before its last wanted token, and to its end for scores.
            targets: [B, T], right-padded: the token that is spoken of at each place, after what stands before it.
            wanted: [B, T], true where one is; false in the first column.
            temperature: [B].
            read: of ``logprobs`` (and with them ``entropy``) [B, T]; ``values`` [B, T], what ``head`` makes of the
                state before each wanted token; ``scores`` [B], what it makes of the state after the last token.
            head: needed for values and scores.
            lengths: [B], how many tokens each sequence has; needed for scores.
        """
        rows, columns = wanted.nonzero(as_tuple=True)
        places = laid.places(rows, columns - 1)
        said: dict[str, Tensor] = {}
        with self.arithmetic():
            hidden, logits = self._states(laid, logits="logprobs" in read)
            if "logprobs" in read:
                often = len(rows) > OFTEN * laid.tokens.numel() and bool((temperature == temperature[0]).all())
                logprobs = self._asked if often else self._logprobs
                found = logprobs(hidden, logits, places, targets[rows, columns], temperature[rows])
                said["logprobs"], said["entropy"] = (_scattered(x, rows, columns, wanted.shape) for x in found)
            if "values" in read and head is not None:
                said["values"] = _scattered(head(hidden.index_select(0, places)), rows, columns, wanted.shape)
            if "scores" in read and head is not None and lengths is not None:
                last = laid.places(torch.arange(len(lengths), device=lengths.device), lengths - 1)
                said["scores"] = head(hidden.index_select(0, last))
        return said

    def states(self, laid: Laid) -> Tensor:
        """Hidden states [M, H] of every token that is run."""
        return self._states(laid, logits=False)[0]

    def states_of_layer(self, laid: Laid, layer: int) -> Tensor:
        """What the layer of that number, counted from 1, gives every token that is run [M, H]; 0 is the embeddings."""
        with self.arithmetic(), self._attending(laid):
            output = self.module.base_model(**_inputs(laid), output_hidden_states=True)
        states: Tensor = output.hidden_states[layer]
        return states.flatten(0, 1)

    def logits(self, laid: Laid) -> Callable[[Tensor], Tensor]:
        """The model is run; what comes back gives the logits [n, V] that follow the tokens at n places of ``laid``."""
        with self.arithmetic():
            hidden, logits = self._states(laid, logits=True)

        def at(places: Tensor) -> Tensor:
            if logits is not None:
                return logits.index_select(0, places).float()
            with self.arithmetic():
                found: Tensor = self.module.get_output_embeddings()(hidden.index_select(0, places))
            return found.float()

        return at

    def _states(self, laid: Laid, *, logits: bool) -> tuple[Tensor, Tensor | None]:
        """The same, and logits [M, V] where the head's own arithmetic must make them."""
        inputs = _inputs(laid)
        with self._attending(laid):
            if self.head_is_one_matrix or not logits:
                return self.module.base_model(**inputs).last_hidden_state.flatten(0, 1), None
            output = self.module(**inputs, output_hidden_states=True)
        return output.hidden_states[-1].flatten(0, 1), output.logits.flatten(0, 1)

    def _attending(self, laid: Laid) -> AbstractContextManager[object]:
        return nullcontext() if laid.attention is None else attending(self.module, laid.attention)

    def _logprobs(
        self, hidden: Tensor, logits: Tensor | None, places: Tensor, targets: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        if logits is not None:
            return logprobs_of_logits(logits.index_select(0, places), targets, temperature)
        head = self.module.get_output_embeddings()
        return token_logprobs(hidden.index_select(0, places), head.weight, head.bias, targets, temperature)

    def _asked(
        self, hidden: Tensor, logits: Tensor | None, places: Tensor, targets: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same, where one state has many targets."""
        distinct, owner = torch.unique(places, return_inverse=True)
        head = self.module.get_output_embeddings()
        states = (hidden if logits is None else logits).index_select(0, distinct)

        def logits_of(stretch: slice) -> Tensor:
            return states[stretch] if logits is not None else head(states[stretch])

        return asked_logprobs(logits_of, self.vocabulary, owner, targets, temperature[:1])

    def check_tokens(self, name: str, low: int, high: int, length: int) -> None:
        """Refuse what the model has no embedding or no position for.

        Raises:
            LossInputError: a token id is outside the vocabulary.
            ModelError: the sequence is longer than the context.
        """
        if low < 0 or high >= self.vocabulary:
            wrong = low if low < 0 else high
            raise LossInputError(
                f"{name} holds token id {wrong}, and the vocabulary of {self.source} is 0 to {self.vocabulary - 1}"
            )
        if length > self.context:
            raise ModelError(f"{name} has {length} tokens, and the context of {self.source} is {self.context}")


def load_model(
    source: str,
    *,
    device: torch.device,
    precision: Precision,
    trained: bool,
    quantization: Quantization | None = None,
    stored: bool = True,
) -> LanguageModel:
    """A causal LM from a folder or a hub name; a folder that holds an adapter is its base with the adapter merged.

    ``trained`` weights stay float32 whatever the precision; frozen ones are loaded in it, or stored in few bits, or, if
    not ``stored``, are what those bits stand for. An adapter is merged into what it was trained beside.

    Raises:
        ModelError: there is no such model, or its files cannot be read.
        CheckpointError: it is a checkpoint that was altered.
    """
    folder = Path(source)
    if (folder / checkpoint.MANIFEST).is_file():
        checkpoint.verify(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        base = read_layout(folder).base_model
        bits, stored = quantization or _beside(folder), stored and quantization is not None
        model = load_model(base, device=device, precision=precision, trained=trained, quantization=bits, stored=stored)
        merge_adapter(model.module, folder)
        model.source = source
        model.head = None if trained else saved_head(model, folder)
        return model
    dtype = torch.bfloat16 if precision == "bfloat16" and not trained else torch.float32
    try:
        with LOADING:
            _check_whole(source)
            module = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
            tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, SafetensorError, RuntimeError, KeyError, ImportError) as error:
        raise ModelError(_why(source, error)) from error
    if quantization is not None:
        (quantize if stored else rounded)(module, quantization)
    module = module.to(device).eval()
    module.requires_grad_(trained)
    if not trained:  # a policy lays out what it trains, its head included
        lay_out(list(module.parameters()))
    embeddings = module.get_input_embeddings()
    loaded = LanguageModel(
        module=module,
        tokenizer=tokenizer,
        source=source,
        precision=precision,
        slots=Slots(module),
        context=_context(module),
        vocabulary=embeddings.num_embeddings,
        end_token_ids=_end_tokens(module, tokenizer),
        head_is_one_matrix=_head_is_one_matrix(module),
    )
    loaded.head = None if trained else saved_head(loaded, folder)
    return loaded


def _beside(folder: Path) -> Quantization | None:
    """In how many bits the weights were beside which an adapter was trained, where its folder says so."""
    if not (folder / checkpoint.STATE).is_file():
        return None
    kind: Quantization | None = json.loads((folder / checkpoint.STATE).read_text())["spec"].get("quantization")
    return kind


def new_head(model: LanguageModel) -> Head:
    """A head for the model's hidden states; the one its source holds, where it holds one."""
    head = Head(model.module.config.get_text_config().hidden_size, model.device)
    if has_head(Path(model.source)):
        head.read(Path(model.source))
    return head


def saved_head(model: LanguageModel, folder: Path) -> Head | None:
    """The head in a folder, if there is one, frozen."""
    if not has_head(folder):
        return None
    head = new_head(model)
    for parameter in head.parameters.values():
        parameter.requires_grad_(False)
    return head


def _check_whole(source: str) -> None:
    """Refuse weights that are stored in layers of another package's, in which no adapter is trained here."""
    stored = getattr(AutoConfig.from_pretrained(source), "quantization_config", None) or {}
    if stored.get("quant_method") == "bitsandbytes":
        raise ModelError(
            f"the model in {source} was stored in few bits by bitsandbytes, whose layers are not trained here: give "
            "the model in full, and policy.quantization stores it in few bits"
        )


def _why(source: str, error: Exception) -> str:
    folder = Path(source)
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if folder.is_dir():
        needs = "config.json, *.safetensors and a tokenizer"
        return f"the model in {source} cannot be loaded ({first_line}): the folder needs {needs}"
    if folder.is_absolute() or source.startswith("."):
        return f"there is no model folder {source}: give a folder with config.json and *.safetensors, or a hub name"
    return f"no model {source!r}: it is neither a folder here nor a hub name that can be reached ({first_line})"


def _context(module: PreTrainedModel) -> int:
    config = module.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 1 << 20)


def _end_tokens(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    configured = module.generation_config.eos_token_id if module.generation_config is not None else None
    ends = configured if isinstance(configured, list) else [configured]
    return frozenset(int(end) for end in [*ends, tokenizer.eos_token_id] if end is not None)


@torch.no_grad()
def _head_is_one_matrix(module: PreTrainedModel) -> bool:
    """Looked at on a few tokens: some models scale or cap what their head gives, or what goes into it."""
    head = module.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return False
    seen: list[tuple[Tensor, Tensor]] = []
    hook = head.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    tokens = torch.arange(4, device=module.device)[None] % module.get_input_embeddings().num_embeddings
    logits = module(input_ids=tokens, use_cache=False).logits
    hook.remove()
    hidden = module.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    return len(seen) == 1 and torch.equal(seen[0][1], logits) and torch.equal(seen[0][0], hidden)


def _inputs(laid: Laid) -> dict[str, Any]:
    positions = {} if laid.positions is None else {"position_ids": laid.positions}
    return {"input_ids": laid.tokens, "use_cache": False, **positions}


def _scattered(found: Tensor, rows: Tensor, columns: Tensor, shape: torch.Size) -> Tensor:
    """[B, T], with what was found at its places and zeros elsewhere."""
    return torch.zeros(shape, device=found.device, dtype=found.dtype).index_put((rows, columns), found)
