"""A causal language model as the engine uses it: hidden states and head apart, limits known."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fettle.engine.local import checkpoint
from fettle.engine.local.logprobs import logprobs_of_logits, token_logprobs
from fettle.engine.local.lora import ADAPTER_CONFIG, Slots, merge_adapter, read_layout
from fettle.errors import LossInputError, ModelError

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

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

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.module.device
        return device

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """By name; tied weights once."""
        return dict(self.module.named_parameters())

    def arithmetic(self) -> AbstractContextManager[object]:
        """Autocast where bfloat16 is asked of float32 weights."""
        dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        return torch.autocast(self.device.type, dtype, enabled=self.precision == "bfloat16")

    def logprobs(self, tokens: Tensor, wanted: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy at the wanted tokens, zero elsewhere.

        Args:
            tokens: [B, T], right-padded.
            wanted: [B, T], true where the token's log-probability is wanted; false in the first column.
            temperature: [B].

        Returns:
            Two tensors [B, T].
        """
        rows, columns = wanted.nonzero(as_tuple=True)
        targets, tau = tokens[rows, columns], temperature[rows]
        with self.arithmetic():
            if self.head_is_one_matrix:
                hidden = self.module.base_model(
                    input_ids=tokens[:, :-1], use_cache=False
                ).last_hidden_state  # [B, T-1, H]
                head = self.module.get_output_embeddings()
                found = token_logprobs(hidden[rows, columns - 1], head.weight, head.bias, targets, tau)
            else:
                logits = self.module(input_ids=tokens[:, :-1], use_cache=False).logits  # [B, T-1, V]
                found = logprobs_of_logits(logits[rows, columns - 1], targets, tau)
        logprobs, entropy = (torch.zeros(tokens.shape, device=x.device, dtype=x.dtype) for x in found)
        return logprobs.index_put((rows, columns), found[0]), entropy.index_put((rows, columns), found[1].detach())

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


def load_model(source: str, *, device: torch.device, precision: Precision, trained: bool) -> LanguageModel:
    """A causal LM from a folder or a hub name; a folder that holds an adapter is its base with the adapter merged.

    ``trained`` weights stay float32 whatever the precision; frozen ones are loaded in it.

    Raises:
        ModelError: there is no such model, or its files cannot be read.
        CheckpointError: it is a checkpoint that was altered.
    """
    folder = Path(source)
    if (folder / checkpoint.MANIFEST).is_file():
        checkpoint.verify(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        base = read_layout(folder).base_model
        model = load_model(base, device=device, precision=precision, trained=trained)
        merge_adapter(model.module, folder)
        model.source = source
        return model
    dtype = torch.bfloat16 if precision == "bfloat16" and not trained else torch.float32
    try:
        module = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, SafetensorError, RuntimeError, KeyError) as error:
        raise ModelError(_why(source, error)) from error
    module = module.to(device).eval()
    module.requires_grad_(trained)
    embeddings = module.get_input_embeddings()
    return LanguageModel(
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


def state_of(parameters: Mapping[str, nn.Parameter]) -> list[Tensor]:
    """A copy of the values."""
    return [parameter.detach().clone() for parameter in parameters.values()]


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
