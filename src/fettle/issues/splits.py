"""Problems in two sets, none of which tells of the other: by repository, by time, and by likeness."""

import builtins
import keyword
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from fettle.config.issues import Split
from fettle.errors import DataError
from fettle.issues.instances import Instance
from fettle.issues.patches import files_of
from fettle.issues.records import moment
from fettle.randomness import key

WORD = re.compile(r"\w+")
PIECE = re.compile(r"\w+|[^\w\s]")
KNOWN = frozenset({*keyword.kwlist, *dir(builtins)})
"""Names that mean the same in every program; all others may be others in a copy."""
SHINGLE = 4
"""Words in a row that two texts may share."""
LEAST_PIECES = 24
"""Pieces of a program around a change, below which two may be nearly the same by chance."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Two problems, one in each set, of which one tells of the other."""

    first: str
    second: str
    why: str

    def __str__(self) -> str:
        return f"{self.first} and {self.second}: {self.why}"


def split(instances: Sequence[Instance], settings: Split) -> tuple[list[Instance], list[Instance]]:
    """Those to train on, and those held out; clusters of likes are never parted.

    By ``repository`` whole repositories are held out, with their forks and mirrors; by ``time`` what came after a
    moment, with a gap before it; by ``cluster`` clusters by chance.

    Raises:
        DataError: one of the two would be empty, or what is held out leaks.
    """
    parts = {"repository": _by_repository, "time": _by_time, "cluster": _by_cluster}
    training, heldout = parts[settings.by](instances, settings)
    for name, part in (("train on", training), ("hold out", heldout)):
        if not part:
            raise DataError(f"of {len(instances)} problems split by {settings.by} none is left to {name}: {MEND}")
    check_apart(training, heldout, likeness=settings.likeness)
    return training, heldout


MEND = "split by cluster, change heldout, or mine more"


def check_apart(training: Sequence[Instance], heldout: Sequence[Instance], *, likeness: float) -> None:
    """Refuse two sets of which one tells of the other.

    Raises:
        DataError: they do, with the first few pairs.
    """
    found = leaks(training, heldout, likeness=likeness)
    if found:
        told = "; ".join(map(str, found[:3]))
        count = len({leak.second for leak in found})
        raise DataError(f"{count} held-out problems are told of by others, such as {told}: split by cluster")


def apart(instances: Sequence[Instance], heldout: Sequence[Instance], *, likeness: float) -> list[Instance]:
    """Those that tell of none that is held out, and are like none that does."""
    kept = {one.instance_id for one in heldout}
    together = clusters([*instances, *heldout], likeness=likeness)
    told = {one.instance_id for alike in together if any(one.instance_id in kept for one in alike) for one in alike}
    return [one for one in instances if one.instance_id not in told]


def leaks(training: Sequence[Instance], heldout: Sequence[Instance], *, likeness: float) -> list[Leak]:
    """Pairs across two sets that are the same problem, the same change, or nearly the same words."""
    both = [*training, *heldout]
    inside = {one.instance_id for one in training}
    alike = _alike(both, likeness)
    return [Leak(a, b, why) for a, b, why in alike if (a in inside) != (b in inside) or a == b]


def clusters(instances: Sequence[Instance], *, likeness: float) -> list[list[Instance]]:
    """Problems that must not be parted, in the order of their first."""
    leader = {one.instance_id: one.instance_id for one in instances}

    def of(id: str) -> str:
        while leader[id] != id:
            id = leader[id]
        return id

    for first, second, _ in _alike(instances, likeness):
        leader[of(second)] = of(first)
    found: dict[str, list[Instance]] = defaultdict(list)
    for one in instances:
        found[of(one.instance_id)].append(one)
    return list(found.values())


def _alike(instances: Sequence[Instance], likeness: float) -> list[tuple[str, str, str]]:
    """Pairs that are alike, and in what."""
    found: list[tuple[str, str, str]] = []
    seen: dict[str, dict[str, str]] = {"the same id": {}, "the same change": {}, "the same lines": {}}
    for one in instances:
        marks = {"the same id": one.instance_id, "the same change": one.patch_id, "the same lines": _lines(one)}
        for why, mark in marks.items():
            if mark and mark in seen[why]:
                found.append((seen[why][mark], one.instance_id, why))
            elif mark:
                seen[why][mark] = one.instance_id
    statements = {one.instance_id: _shingles(WORD.findall(one.problem_statement.lower())) for one in instances}
    programs = {one.instance_id: _shingles(_pieces(one), least=LEAST_PIECES) for one in instances}
    found += _sharing(statements, likeness, "nearly the same words")
    return found + _sharing(programs, likeness, "nearly the same program under other names")


def _pieces(instance: Instance) -> list[str]:
    """What the files of a change say around it once it is made, piece by piece, with one name for all names."""
    hunks = [hunk for file in files_of(instance.patch) for hunk in file.hunks]
    lines = [line[1:] for hunk in hunks for line in hunk if line[:1] in (" ", "+")]
    return [_masked(piece) for line in lines for piece in PIECE.findall(line)]


def _masked(piece: str) -> str:
    return "_" if piece.isidentifier() and piece not in KNOWN else piece


def _lines(instance: Instance) -> str:
    """What a change adds and removes, whatever file it is in and however it is laid out."""
    files = files_of(instance.patch)
    lines = [
        f"{sign}{' '.join(line.split())}" for f in files for sign, ls in _signed(f.removed, f.added) for line in ls
    ]
    return "\n".join(line for line in lines if len(line) > 1) if sum(map(len, lines)) >= LEAST_LINES else ""


LEAST_LINES = 40
"""Characters of a change, below which two may be the same by chance."""


def _signed(removed: tuple[str, ...], added: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return ("-", removed), ("+", added)


def _sharing(
    shingles: Mapping[str, frozenset[tuple[str, ...]]], likeness: float, why: str
) -> list[tuple[str, str, str]]:
    """Pairs of problems that share so much of what is in a row (Jaccard).

    Two that do share one of their rarest, among the first n - ceil(likeness n) + 1 of n: only those are looked up
    (Chaudhuri, Ganti and Kaushik, 2006, "A primitive operator for similarity joins").
    """
    common = Counter(shingle for own in shingles.values() for shingle in own)
    holders: Mapping[tuple[str, ...], list[str]] = defaultdict(list)
    found = []
    for id, own in shingles.items():
        rarest = sorted(own, key=lambda shingle: (common[shingle], shingle))
        rarest = rarest[: len(own) - math.ceil(likeness * len(own)) + 1]
        for other in dict.fromkeys(other for shingle in rarest for other in holders[shingle]):
            both = len(own & shingles[other])
            if both >= likeness * (len(own) + len(shingles[other]) - both):
                found.append((other, id, why))
        for shingle in rarest:
            holders[shingle].append(id)
    return found


def _shingles(words: Sequence[str], *, least: int = 1) -> frozenset[tuple[str, ...]]:
    """Every so many in a row; none of fewer words than the least."""
    if len(words) < least:
        return frozenset()
    return frozenset(tuple(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1)))


def _by_cluster(instances: Sequence[Instance], settings: Split) -> tuple[list[Instance], list[Instance]]:
    return _held_out(clusters(instances, likeness=settings.likeness), settings, len(instances))


def _by_repository(instances: Sequence[Instance], settings: Split) -> tuple[list[Instance], list[Instance]]:
    groups: dict[str, list[Instance]] = defaultdict(list)
    for one in instances:
        groups[one.root_commit or one.repo].append(one)
    return _held_out(list(groups.values()), settings, len(instances))


def _held_out(
    groups: Sequence[Sequence[Instance]], settings: Split, count: int
) -> tuple[list[Instance], list[Instance]]:
    """Groups by chance, until so great a share is held out."""
    order = list(range(len(groups)))
    Random(key(settings.seed, "issues", "split")).shuffle(order)
    chosen: set[int] = set()
    held = 0
    for at in order:
        if held >= settings.heldout * count or len(chosen) == len(groups) - 1:
            break
        chosen.add(at)
        held += len(groups[at])
    return _of(groups, set(order) - chosen), _of(groups, chosen)


def _of(groups: Sequence[Sequence[Instance]], chosen: Iterable[int]) -> list[Instance]:
    return [one for at in sorted(chosen) for one in groups[at]]


def _by_time(instances: Sequence[Instance], settings: Split) -> tuple[list[Instance], list[Instance]]:
    """What came last is held out; of what came shortly before that, and of what is like it, nothing is trained on."""
    ordered = sorted(instances, key=_at)
    begin = _at(ordered[-max(1, round(settings.heldout * len(ordered)))])
    heldout = [one for one in ordered if _at(one) >= begin]
    gap = timedelta(days=settings.gap_days)
    before = [one for one in ordered if _solved_at(one) < begin - gap]
    return apart(before, heldout, likeness=settings.likeness), heldout


def _solved_at(instance: Instance) -> datetime:
    """When its solution was there to be read; when it began, where nobody says."""
    return (
        moment(instance.solved_at, place=f"solved_at of {instance.instance_id}")
        if instance.solved_at
        else _at(instance)
    )


def _at(instance: Instance) -> datetime:
    return moment(instance.created_at, place=f"created_at of {instance.instance_id}")
