"""A folder of promoted policies: immutable numbered versions, and one pointer to the one in use.

A version is written beside the others and renamed into place, and the pointer is replaced whole: whoever is killed on
the way leaves what was in use before, or what is in use now.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from fettle.errors import BusyError, CheckpointError, StorageError
from fettle.router.audit import Entry, is_entry
from fettle.router.files import METADATA, POLICY, SCHEMA
from fettle.router.policy import RouterPolicy, load_policy
from fettle.tracking import lasting, write_atomically
from fettle.tracking.atomic import unwritable
from fettle.tracking.claim import LOCK, hold

IN_USE, VERSIONS, MANIFEST = "in_use.json", "versions", "promotion.json"
NOTHING = 0
"""In the place of a version: no policy is in use, and a fixed mode is taken."""
LARGEST = 64 * 2**20
"""Bytes of a file, packed and unpacked; a policy of a thousand hidden units has a hundred thousand."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """What is in use."""

    version: int
    """``NOTHING`` where that is so."""
    before: int
    """What was in use when that version was promoted."""
    manifest_sha256: str
    entry: Entry
    """What the audit log says, or will say, of how it came to be in use."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A version whose files are what they were when it was promoted."""

    version: int
    before: int
    """What was in use then."""
    manifest: Mapping[str, Any]
    manifest_sha256: str


@contextmanager
def locked(registry: Path) -> Iterator[None]:
    """Be the only one to change the registry, which is made where it is not there.

    Raises:
        BusyError: another does.
        StorageError: the folder cannot be written to.
    """
    try:
        (registry / VERSIONS).mkdir(parents=True, exist_ok=True)
        file = (registry / LOCK).open("ab")
    except OSError as error:
        raise StorageError(unwritable(registry, error)) from error
    with file:
        if not hold(file):
            raise BusyError(f"{registry} is being changed by another promotion or rollback: ask again when it is over")
        yield


def pointer(registry: Path) -> Pointer | None:
    """What is in use; None where nothing ever was.

    Raises:
        CheckpointError: the pointer cannot be read.
    """
    path = registry / IN_USE
    try:
        text = _bounded(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): see that it is yours") from error
    try:
        found = json.loads(text)
        kept = Pointer(int(found["version"]), int(found["before"]), str(found["manifest_sha256"]), dict(found["entry"]))
        if found["schema_version"] != SCHEMA or kept.version < NOTHING:
            raise ValueError(f"it is not of schema {SCHEMA}")
        if not is_entry(found["entry"]):
            raise ValueError("its entry does not say who put it to use")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): roll back to a version by its number") from error
    return kept


def point(registry: Path, entry: Entry, kept: Kept | None) -> None:
    """Put a version to use, or none.

    Raises:
        StorageError: it could not be; what was in use still is.
    """
    version, before, sha256 = (
        (NOTHING, NOTHING, "") if kept is None else (kept.version, kept.before, kept.manifest_sha256)
    )
    tree = {"version": version, "before": before, "manifest_sha256": sha256, "entry": dict(entry)}
    tree = {"schema_version": SCHEMA, "simulated": True, **tree}
    write_atomically(registry / IN_USE, json.dumps(tree, indent=2) + "\n")


def numbers(registry: Path) -> list[int]:
    """The versions that are there, in order."""
    folder = registry / VERSIONS
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


def folder_of(registry: Path, version: int) -> Path:
    """Where a version's files are."""
    return registry / VERSIONS / f"{version:06}"


def keep(registry: Path, files: Mapping[str, bytes], said: Mapping[str, Any]) -> Kept:
    """A new version with these files; the caller holds the registry, and points to it or not.

    Raises:
        StorageError: it could not be written.
    """
    version = max(numbers(registry), default=NOTHING) + 1
    final = folder_of(registry, version)
    hashes = {name: hashlib.sha256(contents).hexdigest() for name, contents in files.items()}
    tree = {"schema_version": SCHEMA, "simulated": True, "version": version, **said, "sha256": hashes}
    manifest = json.dumps(tree, indent=2).encode() + b"\n"
    scratch = final.with_name(f".{final.name}.partial")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        for name, contents in {**files, MANIFEST: manifest}.items():
            write_atomically(scratch / name, contents)
            (scratch / name).chmod(0o444)
        scratch.replace(final)
        lasting(final.parent)
    except OSError as error:
        raise StorageError(unwritable(final, error)) from error
    return whole(registry, version)


def whole(registry: Path, version: int) -> Kept:
    """A version, if every file of it is what it was when it was promoted.

    Raises:
        CheckpointError: it is not there, or a file is missing or altered.
    """
    folder = folder_of(registry, version)
    manifest = _read(folder / MANIFEST)
    try:
        tree = json.loads(manifest)
        said, before = dict(tree["sha256"]), int(tree["before"])
        if tree["schema_version"] != SCHEMA or tree["version"] != version:
            raise ValueError(f"it is not of schema {SCHEMA} and version {version}")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is damaged ({error}): use another version") from error
    for name, sha256 in said.items():
        if hashlib.sha256(_read(folder / name)).hexdigest() != sha256:
            raise CheckpointError(f"{folder / name} is not the file that was promoted: use another version")
    return Kept(version, before, tree, hashlib.sha256(manifest).hexdigest())


def in_use(registry: Path) -> tuple[int, RouterPolicy] | None:
    """The version in use and its policy; None where nothing is.

    Raises:
        CheckpointError: the pointer, or what it points to, is missing or altered.
    """
    found = pointer(registry)
    if found is None or found.version == NOTHING:
        return None
    kept = whole(registry, found.version)
    if kept.manifest_sha256 != found.manifest_sha256:
        raise CheckpointError(
            f"{folder_of(registry, found.version)} is not the version that was put to use: roll back to another"
        )
    check_size(folder_of(registry, found.version))
    return found.version, load_policy(folder_of(registry, found.version))


def check_size(folder: Path) -> None:
    """Refuse a run's or a version's files, before they are read, where they are too large to be a policy's.

    Raises:
        CheckpointError: see above.
    """
    for path in (folder / POLICY, folder / METADATA):
        try:
            size = path.stat().st_size
            if path.name == POLICY and size <= LARGEST:
                with ZipFile(path) as packed:
                    size = sum(each.file_size for each in packed.infolist())
        except (OSError, BadZipFile):
            continue  # whoever reads it says what is wrong with it
        if size > LARGEST:
            raise _too_large(path)


def _read(path: Path) -> bytes:
    try:
        return _bounded(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): use another version") from error


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        contents = file.read(LARGEST + 1)
    if len(contents) > LARGEST:
        raise _too_large(path)
    return contents


def _too_large(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is larger than {LARGEST // 2**20} MiB, and no policy is: use another")
