"""A checkpoint as other programs take it: a whole model or a PEFT adapter, its tokenizer, and where it comes from."""

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from fettle.engine.local import checkpoint
from fettle.engine.local.copied import OPTIMIZER, STATE, saved_state
from fettle.engine.local.lora import ADAPTER_CONFIG, read_layout
from fettle.engine.local.model import Precision, load_model
from fettle.errors import CheckpointError, ModelError
from fettle.tracking.provenance import now

Form = Literal["merged", "adapter"]

ORIGIN = "origin.json"
"""In an export: which run, step and base model it is of."""
TO_GO_ON = frozenset({STATE, OPTIMIZER, checkpoint.MANIFEST})
"""Files of a checkpoint that are for training to go on from, and no part of a model."""
PACKAGES = ("fettle", "torch", "transformers", "safetensors")


def export(weights: str, folder: Path, *, form: Form = "merged", precision: Precision = "float32") -> dict[str, Any]:
    """Write a model into a new folder, with a hash of every file; returns where it comes from.

    Merged, an adapter is added to its base model in float32, and rounded afterwards where ``precision`` asks for it.
    Weights that were trained whole are a model already.

    Raises:
        CheckpointError: the folder is there already, or the checkpoint was altered.
        ModelError: it cannot be read, or an adapter is asked for and there is none.
        StorageError: it could not be written.
    """
    source = Path(weights)
    is_adapter = (source / ADAPTER_CONFIG).is_file()
    if form == "adapter" and not is_adapter:
        raise ModelError(f"there is no adapter in {weights}: name a checkpoint that has one, or export it merged")
    if source.is_dir() and not is_adapter and not _is_model(source):
        raise ModelError(f"{weights} holds no model: name a run, one of its checkpoints, or a model with its weights")
    if folder.exists():
        raise CheckpointError(f"there is a folder {folder} already: name a new one")
    if (source / checkpoint.MANIFEST).is_file():
        checkpoint.verify(source)
    origin = {"form": form, **_origin(source)}
    with checkpoint.writing(folder) as scratch:
        if source.is_dir() and (form == "adapter" or not (is_adapter or precision == "bfloat16")):
            _copy(source, scratch)
        else:
            _write_model(weights, scratch, precision)
            origin["precision"] = precision
        (scratch / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n")
    return origin


def _is_model(source: Path) -> bool:
    return (source / "config.json").is_file() and any(source.glob("*.safetensors"))


def _copy(source: Path, folder: Path) -> None:
    for path in source.iterdir():
        if path.is_file() and path.name not in TO_GO_ON:
            shutil.copyfile(path, folder / path.name)


def _write_model(weights: str, folder: Path, precision: Precision) -> None:
    model = load_model(weights, device=torch.device("cpu"), precision="float32", trained=False)
    model.module.to(torch.bfloat16 if precision == "bfloat16" else torch.float32).save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    if model.head is not None:
        model.head.save(folder)


def _origin(source: Path) -> dict[str, Any]:
    """What can be known of where a model comes from; of one that is no checkpoint of ours, little."""
    versions = {name: version(name).partition("+")[0] for name in PACKAGES}
    said: dict[str, Any] = {"exported": now(), "source": source.name, "versions": versions}
    if (source / ORIGIN).is_file():
        said["of"] = json.loads((source / ORIGIN).read_text())
    if (source / ADAPTER_CONFIG).is_file():
        said["base_model"] = read_layout(source).base_model
    if not (source / STATE).is_file():
        return said
    spec, step = saved_state(source)
    said |= {"step": step, "policy": spec.model_dump(mode="json"), "checkpoint_sha256": checkpoint.digest(source)}
    said.setdefault("base_model", said["policy"]["model"])
    recipe = source.resolve().parents[1] / "config.yaml"
    if recipe.is_file():
        said |= {"run": recipe.parent.name, "config_sha256": hashlib.sha256(recipe.read_bytes()).hexdigest()}
    return said
