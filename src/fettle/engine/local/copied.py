"""A policy's weights and moments as they were at one moment, on their way into a checkpoint's folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from fettle.config import PolicySpec
from fettle.engine.local import checkpoint, pieces
from fettle.engine.local.group import Group
from fettle.engine.local.head import HEAD
from fettle.engine.local.lora import Adapter, write_adapter
from fettle.engine.local.model import LanguageModel
from fettle.engine.local.pieces import Piece
from fettle.types import Checkpoint

STATE = checkpoint.STATE
OPTIMIZER = "optimizer.safetensors"


@dataclass(frozen=True, slots=True)
class Copied:
    """Nothing of it changes any more, and it may be written on any thread."""

    spec: PolicySpec
    version: int
    model: LanguageModel
    """For what never changes: its config, its tokenizer."""
    group: Group
    adapter: Adapter | None
    weights: Mapping[str, Tensor] | None
    """By name, of a whole model."""
    head: Mapping[str, Tensor]
    moments: Mapping[str, Piece] | None
    """None where a checkpoint without them was asked for."""

    def write(self, folder: Path) -> None:
        """What this rank has of the checkpoint, into a folder that is there."""
        if self.moments is not None:
            pieces.write(folder / OPTIMIZER, self.moments, self.group)
        if self.group.rank > 0:
            return
        if self.adapter is not None:
            write_adapter(self.adapter, folder, base_model=self.model.source)
        else:
            self.model.module.save_pretrained(folder, state_dict=self.weights)
        if self.head:
            safetensors.torch.save_file(dict(self.head), folder / HEAD)
        self.model.tokenizer.save_pretrained(folder)
        state = {"policy_version": self.version, "spec": self.spec.model_dump(mode="json")}
        (folder / STATE).write_text(json.dumps(state, indent=2) + "\n")


def saved_state(folder: Path) -> tuple[PolicySpec, int]:
    """The spec and version of a verified checkpoint."""
    checkpoint.verify(folder)
    state = json.loads((folder / STATE).read_text())
    return PolicySpec.model_validate(state["spec"]), int(state["policy_version"])


def saved_at(folder: Path) -> Checkpoint:
    """What was just written there."""
    state = json.loads((folder / STATE).read_text())
    return Checkpoint(folder.name, str(folder), int(state["policy_version"]), checkpoint.digest(folder))
