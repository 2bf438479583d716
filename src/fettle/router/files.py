"""The files of a run's folder: their names, and arrays as bytes."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    return arrays_in(contents_of(path), path)


def contents_of(path: Path) -> bytes:
    """The bytes of a file of a run's folder.

    Raises:
        CheckpointError: it is not there, or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no {path}: name a folder that a run with experiment.enabled left") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): see that it is yours") from error


def arrays_in(contents: bytes, path: Path) -> Arrays:
    """The arrays of a ``.npz`` file that was read from ``path``.

    Raises:
        CheckpointError: it is not such a file.
    """
    try:
        with np.load(io.BytesIO(contents), allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except Exception as error:
        # Archives can be damaged in more ways than their readers have classes of errors for.
        why = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} cannot be read as arrays ({why}): it is not whole, so use another") from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise CheckpointError(f"{path} cannot be read as arrays ({name} is none): it is not whole, so use another")
    return found


def object_in(contents: bytes, path: Path) -> dict[str, Any]:
    """The JSON object of a file that was read from ``path``.

    Raises:
        CheckpointError: it is no object, or not of this schema.
    """
    try:
        found = json.loads(contents)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}): it is not whole, so use another") from error
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA:
        raise CheckpointError(f"{path} is not of schema {SCHEMA}: make it again with this release")
    return found
