"""Problems in SWE-bench's format, one a line, and what of ours stands beside it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fettle.errors import DataError


def _listed(value: Any) -> tuple[Any, ...]:
    """Older dumps hold lists as texts of JSON."""
    listed = json.loads(value) if isinstance(value, str) else value
    if not isinstance(listed, list | tuple):
        raise ValueError(f"a list of names is needed, not {listed!r}")
    return tuple(listed)


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Instance(BaseModel):
    """One problem: a repository as it was, what was wrong, and the change that mended it with its tests.

    Fields beyond these, as other data sets of the format have, are kept as they came.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    instance_id: Annotated[str, Field(min_length=1)]
    """``owner__name-number``."""
    repo: Annotated[str, Field(min_length=1)]
    base_commit: str
    """The commit before the change."""
    patch: Annotated[str, Field(min_length=1)]
    """The change, without its tests."""
    test_patch: str = ""
    problem_statement: Annotated[str, Field(min_length=1)]
    hints_text: str = ""
    """What was said of the issue before the change began."""
    created_at: str = ""
    solved_at: str = ""
    """When its solution was committed; empty where nobody says."""
    version: str = ""
    FAIL_TO_PASS: Names = ()
    """Tests that fail before the change and pass after it; empty until they were run."""
    PASS_TO_PASS: Names = ()
    """Tests that pass before and after."""

    synthetic: bool = False
    """The statement was made of the commit's message: there was no issue."""
    link: str = ""
    """How the change was found to belong to the issue."""
    confidence: float = 1.0
    """What that is worth, from 0 to 1."""
    languages: tuple[str, ...] = ()
    changed_files: tuple[str, ...] = ()
    commit: str = ""
    """The change itself, in the repository it was mined from."""
    root_commit: str = ""
    """The repository's oldest commit, which forks and mirrors share."""
    patch_id: str = ""
    """What cherry-picks of the same change share."""

    @property
    def number(self) -> str:
        """Of the issue, in its repository."""
        return self.instance_id.rpartition("-")[2]


def read_instances(path: Path) -> list[Instance]:
    """Those of a JSONL file, or of a JSON list.

    Raises:
        DataError: it cannot be read, an entry is none, or two have one id.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}): give instances in SWE-bench's format") from error
    entries = _entries(path, text)
    found: dict[str, Instance] = {}
    for place, entry in entries:
        try:
            instance = Instance.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the entry"
            raise DataError(f"{place}: {where} cannot be used ({first['msg']})") from error
        if instance.instance_id in found:
            raise DataError(f"{place}: {instance.instance_id} was there before: ids must differ")
        found[instance.instance_id] = instance
    if not found:
        raise DataError(f"{path} holds no instance")
    return list(found.values())


def written(instances: Iterable[Instance]) -> str:
    """The lines of a file."""
    return "".join(json.dumps(one.model_dump(mode="json"), ensure_ascii=False) + "\n" for one in instances)


def _entries(path: Path, text: str) -> list[tuple[str, Any]]:
    if text.lstrip().startswith("["):
        try:
            return [(f"{path}, entry {at}", entry) for at, entry in enumerate(json.loads(text))]
        except ValueError as error:
            raise DataError(f"{path} is no JSON ({error})") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                found.append((f"{path}, line {number}", json.loads(line)))
            except ValueError as error:
                raise DataError(f"{path}, line {number}, is no JSON ({error})") from error
    return found
