"""The files of a run's folder: their names, and arrays as bytes."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fettle.errors import CheckpointError

Arrays = Mapping[str, NDArray[Any]]

SCHEMA = 1
"""Of everything in the folder; it goes up when a name, key or shape changes."""
HISTORY, POLICY = "training_history.json", "policy_state.npz"
METADATA, SNAPSHOT, CHECKPOINTS = "metadata.json", "config_snapshot.yaml", "checkpoints"
EVALUATION, FIGURE = "evaluation.json", "evaluation.png"


def arrays_as_bytes(arrays: Arrays) -> bytes:
    """A ``.npz`` file, the same for the same arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def read_arrays(path: Path) -> Arrays:
    """The arrays of a ``.npz`` file; nothing in it is ever run.

    Raises:
        CheckpointError: it is not there, or not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no {path}: name a folder that a run with experiment.enabled left") from error
    except (OSError, ValueError, KeyError, EOFError, AttributeError, BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read as arrays ({error}): it is not whole, so use another") from error
