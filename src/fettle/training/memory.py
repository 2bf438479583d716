"""How much memory a run needs, from the shape of its model and arithmetic."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from fettle.config import PolicySpec, PreferenceRun, RLRun, SFTRun, StageConfig, TinyModel, TorchEngine
from fettle.config.runs import names_stage
from fettle.engine.filling import filled
from fettle.errors import ModelError
from fettle.losses import required_inputs
from fettle.training.critic import critic_spec
from fettle.training.trust import pulls_to_reference

FLOAT32, BFLOAT16 = 4, 2
ACTIVATIONS_PER_LAYER = 16
"""Numbers of the model's width that one layer keeps for each token until the backward pass: a rule of thumb."""


ACTIVATIONS = "activations of one micro-batch, at most"
"""What the longest micro-batch needs; shorter ones need less."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the estimate needs to know of a model."""

    parameters: int
    layers: int
    hidden: int
    key_value_width: int
    """Heads times width of the keys (and of the values) of one token in one layer."""
    known_from: str


def model_shape(model: str | TinyModel) -> ModelShape | None:
    """From a tiny model's settings, a folder's files, or the size in a hub name; None where nothing tells.

    Raises:
        ModelError: the folder's files cannot be read.
    """
    if isinstance(model, TinyModel):
        per_layer = (3 + 8) * model.hidden**2  # attention about 3, the gated network 3 times 8/3
        parameters = model.layers * per_layer + model.vocabulary * model.hidden
        return ModelShape(parameters, model.layers, model.hidden, model.hidden, "its settings")
    folder = Path(model)
    if (folder / "config.json").is_file():
        return _of_folder(folder)
    size = re.search(r"(\d+(?:\.\d+)?)\s*([BM])(?![a-z])", model, re.IGNORECASE)
    if size is None:
        return None
    parameters = int(float(size[1]) * (1e9 if size[2].upper() == "B" else 1e6))
    # Widths grow about as the cube root of the size; 1.7 B is 28 layers of 2048, keys and values half as wide.
    layers = max(4, round(28 * (parameters / 1.7e9) ** (1 / 3)))
    hidden = max(64, round(2048 * (parameters / 1.7e9) ** (1 / 3)))
    return ModelShape(parameters, layers, hidden, hidden // 2, "the size in its name")


def context_of(model: str | TinyModel) -> int | None:
    """The longest sequence the model takes, in tokens, where its settings or its folder tell."""
    if isinstance(model, TinyModel):
        return model.context
    path = Path(model) / "config.json"
    if not path.is_file():
        return None
    config = json.loads(path.read_text())
    config = config.get("text_config", config)
    context: int | None = config.get("max_position_embeddings") or config.get("n_positions")
    return context


def memory_estimate(run: StageConfig, *, device: str) -> list[tuple[str, int]]:
    """Bytes of a kind of ``device`` by what needs them; empty where the model's shape cannot be known here.

    What a service needs for a run is empty too: its memory is not here.

    Of what the sampler keeps from one call to the next, nothing is counted apart: spare memory was its cache, and
    conversations are kept where episodes have several turns, which environments tell and recipes do not.
    """
    shape = model_shape(run.policy.model)
    if shape is None or not isinstance(run.engine, TorchEngine):
        return []
    return [
        *_of_weights(run.policy, shape),
        *_of_reference(run, shape),
        *(_of_credit(run, shape) if isinstance(run, RLRun) else []),
        (ACTIVATIONS, _activations(run, run.engine, shape, device)),
        *(_of_sampling(run, run.engine, shape) if isinstance(run, RLRun) else []),
    ]


def _of_folder(folder: Path) -> ModelShape:
    try:
        config = json.loads((folder / "config.json").read_text())
        config = config.get("text_config", config)
        hidden = config.get("hidden_size") or config["n_embd"]
        heads = config.get("num_attention_heads") or config["n_head"]
        return ModelShape(
            parameters=sum(_parameters(path) for path in folder.glob("*.safetensors") if "optimizer" not in path.name),
            layers=config.get("num_hidden_layers") or config["n_layer"],
            hidden=hidden,
            key_value_width=(config.get("num_key_value_heads") or heads) * (config.get("head_dim") or hidden // heads),
            known_from="its files",
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the model in {folder} cannot be planned for ({type(error).__name__}: {error}): look at its config.json"
        ) from error


def _parameters(path: Path) -> int:
    """From the header alone: 8 bytes of length, then JSON with each tensor's shape."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for name, tensor in header.items():
        size = 1
        for extent in tensor["shape"] if name != "__metadata__" else [0]:
            size *= extent
        total += size
    return total


def _trained(spec: PolicySpec, shape: ModelShape) -> int:
    if spec.lora is None:
        return shape.parameters
    # Seven linear layers a block, each about as wide as the model on one side and up to four times on the other.
    return shape.layers * 7 * spec.lora.rank * 3 * shape.hidden


def _of_weights(spec: PolicySpec, shape: ModelShape) -> list[tuple[str, int]]:
    trained = _trained(spec, shape)
    if spec.lora is None:
        return [("weights", FLOAT32 * trained), ("gradients", FLOAT32 * trained), ("optimizer", 2 * FLOAT32 * trained)]
    stored = {"int8": 1.0, "nf4": 0.5 + FLOAT32 / 64}
    width = stored[spec.quantization] if spec.quantization else _width(spec)
    return [
        ("frozen weights", int(width * shape.parameters)),
        ("adapter, gradients and optimizer", 4 * FLOAT32 * trained),
    ]


def _of_credit(run: RLRun, shape: ModelShape) -> list[tuple[str, int]]:
    """A critic of its own, a reward model, a teacher, what an undone step goes back to, and a second loss."""
    needs = []
    spec = critic_spec(run)
    if spec is not None:
        sizes = _of_weights(spec, _shape_of(spec.model, shape))
        shared = spec.lora is not None and spec.model == run.policy.model  # adapters of one base hold it once
        needs.append(("a critic of its own", sum(size for _, size in (sizes[1:] if shared else sizes))))
    if run.reward_model is not None:
        needs.append(("the reward model", _width(run.policy) * _shape_of(run.reward_model.model, shape).parameters))
    if run.teacher is not None:
        needs.append(("the teacher", _width(run.policy) * _shape_of(run.teacher.model, shape).parameters))
    if run.trust_region is not None and run.trust_region.type == "hard":
        needs.append(("weights and moments to go back to", 3 * FLOAT32 * _trained(run.policy, shape)))
    if run.rehearsal is not None:
        needs.append(("gradients of what is rehearsed", FLOAT32 * _trained(run.policy, shape)))
    return needs


def _shape_of(model: str | TinyModel, policy: ModelShape) -> ModelShape:
    """Of a model beside the policy; what a stage left has the policy's shape, as all go back to the first's model."""
    if isinstance(model, str) and names_stage(model):
        return policy
    return model_shape(model) or policy


def _width(spec: PolicySpec) -> int:
    return BFLOAT16 if spec.precision == "bfloat16" else FLOAT32


def _of_reference(run: StageConfig, shape: ModelShape) -> list[tuple[str, int]]:
    """Under LoRA the reference is the same weights with the adapter out, unless another one is named."""
    if isinstance(run, RLRun) and pulls_to_reference(run):
        what = "the KL penalty's reference"
    elif isinstance(run, PreferenceRun) and "reference_logprobs" in required_inputs(run.loss):
        what = "the reference"
    else:
        return []
    if run.policy.lora is not None and run.reference is None:
        return []
    return [(what, _width(run.policy) * shape.parameters)]


def micro_batch_tokens(run: StageConfig, engine: TorchEngine, device: str) -> int:
    """Tokens in the longest micro-batch, with prompts taken to be as long as replies."""
    if isinstance(run, RLRun):
        largest = run.sampling.max_tokens * (run.group_size + 1)
    else:
        largest = run.max_tokens if isinstance(run, SFTRun) else 2 * run.max_tokens
    return filled(engine.train_tokens, device, largest=largest)


def _activations(run: StageConfig, engine: TorchEngine, shape: ModelShape, device: str) -> int:
    tokens = micro_batch_tokens(run, engine, device)
    return _width(run.policy) * tokens * shape.layers * ACTIVATIONS_PER_LAYER * shape.hidden


def _of_sampling(run: RLRun, engine: TorchEngine, shape: ModelShape) -> list[tuple[str, int]]:
    """The cache, and copies of weights that are sampled from while others are trained."""
    ahead = run.max_staleness // (run.minibatches * run.epochs)
    copies = ahead + (engine.sampling_threads is not None)
    copied = [("weights copied for the sampler", copies * FLOAT32 * _trained(run.policy, shape))] if copies else []
    return [*copied, ("sampler's cache", _cache(run, engine, shape))]


def _cache(run: RLRun, engine: TorchEngine, shape: ModelShape) -> int:
    width = _width(run.policy)
    rows = run.groups_per_step * run.group_size * run.sampling.max_tokens * 2  # prompts taken to be as long again
    return width * min(engine.sample_tokens, rows) * shape.layers * 2 * shape.key_value_width
