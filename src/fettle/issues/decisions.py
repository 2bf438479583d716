"""What was decided of problems, a line each as soon as it is: an interruption loses none of it."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fettle.config.issues import Validation
from fettle.errors import DataError, StorageError
from fettle.issues.git import Repository
from fettle.issues.instances import Instance


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a problem is kept."""

    instance: Instance
    """With its tests, if it is."""
    kind: str = ""
    """Of the reason for which it is dropped; empty where it is kept."""
    why: str = ""


class Decisions:
    """A file of decisions. One is found again for the same problem of the same repository under the same settings."""

    def __init__(self, path: Path, repository: Path, settings: Validation) -> None:
        """Read what is there; a line that was cut short by an end is none.

        Raises:
            DataError: a line is no decision; or there is no such repository.
            StorageError: it cannot be read or written.
        """
        self.path = path
        self._about = f"{Repository(repository).root} {settings.model_dump_json()}"
        try:
            data = path.read_bytes() if path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                os.truncate(path, len(whole))
        except OSError as error:
            raise StorageError(f"{path} could not be read ({error}): see that it is yours, or remove it") from error
        self._found = dict(self._read(whole))

    def _read(self, data: bytes) -> Iterator[tuple[str, Decision]]:
        for number, line in enumerate(data.splitlines(), 1):
            try:
                said = json.loads(line)
                yield said["of"], Decision(Instance.model_validate(said["instance"]), said["kind"], said["why"])
            except (ValueError, KeyError, TypeError, ValidationError) as error:
                raise DataError(f"{self.path}, line {number}, is no decision ({error!r}): remove the file") from error

    def of(self, instance: Instance) -> Decision | None:
        """What was decided of a problem; None where nothing was."""
        return self._found.get(self._name(instance))

    def add(self, instance: Instance, decision: Decision) -> None:
        """Write down what was decided of a problem, so that it is there whatever happens next.

        Raises:
            StorageError: it could not be written.
        """
        said = {"of": self._name(instance), "kind": decision.kind, "why": decision.why}
        line = json.dumps({**said, "instance": decision.instance.model_dump(mode="json")}, ensure_ascii=False)
        try:
            with self.path.open("ab") as file:
                file.write(f"{line}\n".encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"{self.path} could not be written ({error}): see that there is space") from error
        self._found[said["of"]] = decision

    def remove(self) -> None:
        """All is decided, and written elsewhere."""
        self.path.unlink(missing_ok=True)

    def _name(self, instance: Instance) -> str:
        return hashlib.sha256(f"{self._about} {instance.model_dump_json()}".encode()).hexdigest()
