"""Problems made here whose tests are known without being run, and the replies that solve them."""

import asyncio
import re
from pathlib import Path

from fettle.config import Corpus, Issues, Mining
from fettle.issues.corpus import flaws, write_corpus
from fettle.issues.exports import read_export
from fettle.issues.git import Repository
from fettle.issues.instances import Instance, written
from fettle.issues.mining import mine
from fettle.issues.patches import files_of
from fettle.issues.splits import clusters
from fettle.issues.trees import tree_of
from fettle.sandbox import sandbox

TEST = re.compile(r"def (test_\w+)")


def problems(folder: Path, count: int) -> list[Instance]:
    """Problems no two of which are alike, out of a corpus in a folder that is made."""
    corpus = Corpus(problems=count + 2)
    write_corpus(folder, corpus, asyncio.run(flaws(sandbox(), corpus)))
    mined = mine(Repository(folder / "repository"), read_export(folder / "issues.json"), Mining()).instances
    apart = [alike[0] for alike in clusters(mined, likeness=0.8)]
    assert len(apart) >= count
    return [_told(folder / "repository", one) for one in apart[:count]]


def _told(repository: Path, instance: Instance) -> Instance:
    """With the names of its tests, which say themselves what they tell."""
    (file,) = files_of(instance.test_patch)
    before = TEST.findall(tree_of(repository, instance.base_commit).text(file.path) or "")
    names = {"FAIL_TO_PASS": TEST.findall("\n".join(file.added)), "PASS_TO_PASS": before}
    return instance.model_copy(update={kind: tuple(f"{file.path}::{n}" for n in ns) for kind, ns in names.items()})


def settings(folder: Path, *, training: int, heldout: int) -> tuple[Issues, dict[str, Instance]]:
    """Settings of an environment of so many problems, and the problems by their ids."""
    found = problems(folder, training + heldout)
    (folder / "problems.jsonl").write_text(written(found))
    given = {"path": str(folder / "problems.jsonl"), "repository": str(folder / "repository")}
    return Issues(**given, heldout=heldout), {one.instance_id: one for one in found}


def solution(instance: Instance) -> str:
    """The reply that solves a problem."""
    edits = [(file.path, file.removed, file.added) for file in files_of(instance.patch)]
    return "\n".join(edit(path, "\n".join(old), "\n".join(new)) for path, old, new in edits)


def edit(path: str, old: str, new: str) -> str:
    """An edit as a model writes it."""
    return f'<edit path="{path}">\n{old}\n=======\n{new}\n</edit>'
