"""What lies in the folders of checkpoints, whatever the catalogue says of them."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from fettle.service.entries import CheckpointEntry

MANIFEST, STATE = "manifest.json", "policy.json"
"""Files of every checkpoint: the hashes of the others, and what it was made of."""


def written(entry: CheckpointEntry) -> CheckpointEntry:
    """The entry with what is in its folder, if that was written."""
    folder = Path(entry.path)
    try:
        version = int(json.loads((folder / STATE).read_text())["policy_version"])
        with (folder / MANIFEST).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, TypeError, KeyError):
        return entry
    return replace(entry, digest=digest, policy_version=version, nbytes=sum(size for _, size in files_of(folder)))


def left(root: Path, kept: Mapping[str, CheckpointEntry], planned: Collection[str]) -> dict[str, str]:
    """Folders of checkpoints that have another one now, each with the checkpoint's id."""
    found: dict[str, str] = {}
    for entry in kept.values():
        folder = root / entry.run / entry.kind
        for path in (folder / entry.name, *folder.glob(f"{entry.name}@*")):
            if str(path) != entry.path and str(path) not in planned and path.is_dir():
                found[str(path)] = entry.id
    return found


def files_of(folder: Path) -> list[tuple[str, int]]:
    """Each with its size."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in found)
