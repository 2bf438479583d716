"""Promotion: a policy comes into use where held-out evidence says that it is better than what is in use.

All evidence is simulated. What is asked, granted or refused is in the registry's audit log.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fettle.config.routing import PromotionGate
from fettle.errors import BusyError, CheckpointError, RefusedError
from fettle.router.audit import Audit, Entry, append, entry, read_audit
from fettle.router.evidence import Candidate, Comparison, candidate_of, compared
from fettle.router.registry import NOTHING, Kept, Pointer, in_use, keep, locked, numbers, point, pointer, whole

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of a candidate."""

    refused: str | None
    """Why it may not be promoted, in one sentence; None where it may."""
    comparison: Comparison | None
    """With what is in use; None where it did not come to that."""
    candidate: Candidate | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Promotion:
    """What came into use, and on what evidence."""

    version: int
    before: int
    """What was in use until then; ``NOTHING`` where nothing was."""
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a registry."""

    number: int
    manifest: Mapping[str, Any]
    """Empty where it is damaged."""
    damage: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """What a registry holds."""

    in_use: Pointer | None
    """None where nothing ever was, or where the pointer is damaged."""
    damage: str | None
    """What is wrong with what is in use."""
    versions: tuple[Version, ...]
    audit: Audit


def verdict(candidate: Path, registry: Path, *, gate: PromotionGate | None = None) -> Verdict:
    """What ``promote`` would say of the run in ``candidate``. Nothing is written."""
    comparison = None
    try:
        found = candidate_of(candidate, gate or PromotionGate())
        comparison = compared(found, in_use(registry))
    except (RefusedError, CheckpointError) as error:
        return Verdict(error.message, comparison)
    if comparison.low > 0:
        return Verdict(None, comparison, found)
    return Verdict(
        f"{candidate} earns {comparison.mean:+.4f} a decision over {comparison.against}, with a 95 % interval of "
        f"[{comparison.low:+.4f}, {comparison.high:+.4f}] that is not above 0: train it for longer, or keep what is",
        comparison,
    )


def promote(
    candidate: Path, registry: Path, *, who: str, why: str = "", gate: PromotionGate | None = None
) -> Promotion:
    """Put the policy of the run in ``candidate`` to use, if its evidence is enough.

    Raises:
        RefusedError: it is not.
        BusyError: another promotion or rollback is under way.
        StorageError: the registry could not be written.
    """

    def weighed() -> Promotion:
        found = verdict(candidate, registry, gate=gate)
        if found.refused is not None or found.candidate is None or found.comparison is None:
            raise RefusedError(found.refused or f"{candidate} was not weighed")
        current = pointer(registry)
        before = NOTHING if current is None else current.version
        event = entry(
            "promoted",
            who=who,
            why=why,
            before=before,
            policy_sha256=found.candidate.sha256,
            comparison=asdict(found.comparison),
        )
        kept = keep(registry, found.candidate.files, {**event, "from": str(candidate.resolve())})
        _use(registry, {**event, "version": kept.version}, kept)
        return Promotion(kept.version, before, found.comparison)

    return _accounted(registry, weighed, who=who, why=why, asked=f"promote {candidate}")


def rollback(registry: Path, *, who: str, why: str = "", to: int | None = None, expected: int | None = None) -> int:
    """Go back to the version that was in use when the present one was promoted, or to one by its number.

    Whoever goes back for what they saw of a version names it as ``expected``. Returns what is then in use: ``NOTHING``
    where nothing was.

    Raises:
        RefusedError: there is no such registry or version, it is damaged, or another is in use than was expected.
        BusyError: another promotion or rollback is under way.
        StorageError: the registry could not be written.
    """
    if not registry.is_dir():
        raise RefusedError(f"there is no {registry}: name a folder that policies were promoted in")

    def gone_back() -> int:
        current, version = _current(registry, to)
        if expected is not None and current != expected:
            raise RefusedError(f"version {expected} is not in use any more, but {current}: look at that one first")
        kept = None
        if version != NOTHING:
            if version not in numbers(registry):
                there = ", ".join(map(str, numbers(registry))) or "none"
                raise RefusedError(f"{registry} has no version {version}: there is {there}")
            kept = whole(registry, version)
        _use(registry, entry("rolled_back", who=who, why=why, before=current, version=version), kept)
        return version

    return _accounted(registry, gone_back, who=who, why=why, asked=f"roll back to {'the last' if to is None else to}")


def status(registry: Path) -> Status:
    """What is in use, what else is there, and what was done.

    Raises:
        StorageError: the audit log cannot be read.
    """
    current, damage = None, None
    try:
        current = pointer(registry)
        in_use(registry)
    except CheckpointError as error:
        damage = error.message
    return Status(current, damage, tuple(_version(registry, each) for each in numbers(registry)), read_audit(registry))


def _version(registry: Path, number: int) -> Version:
    try:
        return Version(number, whole(registry, number).manifest, None)
    except CheckpointError as error:
        return Version(number, {}, error.message)


def _current(registry: Path, to: int | None) -> tuple[int | None, int]:
    """What is in use, None where that cannot be told, and what is to be."""
    try:
        current = pointer(registry)
    except CheckpointError:
        if to is None:
            raise
        return None, to
    now = NOTHING if current is None else current.version
    if to == now or (to is None and now == NOTHING):
        raise RefusedError(f"{registry} has {f'version {now}' if now else 'nothing'} in use already: name another")
    return now, to if to is not None else NOTHING if current is None else current.before


def _use(registry: Path, event: Entry, kept: Kept | None) -> None:
    """The pointer first, with what the log is going to say, so that neither is ever without the other."""
    point(registry, event, kept)
    append(registry, event)


def _accounted(registry: Path, deed: Callable[[], Result], *, who: str, why: str, asked: str) -> Result:
    """What ``deed`` comes to while nobody else changes the registry; where it is refused, the log says so."""
    try:
        with locked(registry):
            _settle(registry)
            return deed()
    except (RefusedError, BusyError, CheckpointError) as error:
        append(registry, entry("refused", who=who, why=why, asked=asked, reason=error.message))
        if isinstance(error, CheckpointError):
            raise RefusedError(error.message) from error
        raise


def _settle(registry: Path) -> None:
    """Say what one who was killed had done and could not say."""
    known = read_audit(registry).entries
    try:
        current = pointer(registry)
    except CheckpointError:
        return
    unsaid = [] if current is None or current.entry in known else [current.entry]
    told = {each.get("version") for each in (*known, *unsaid)}
    unfinished = [number for number in numbers(registry) if number not in told]
    who = {"who": "fettle", "why": "whoever promoted it was interrupted before it came into use"}
    append(registry, *unsaid, *(entry("interrupted", version=number, **who) for number in unfinished))
