"""One round without a person: what is in use is looked at again, another is trained, and the gate decides.

Each step is in the registry's audit log, whether it was done or, in a dry run, would have been. All of it is simulated.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fettle.config.router import RouterConfig, switched_off
from fettle.config.routing import PromotionGate
from fettle.errors import BusyError, CheckpointError, ConfigError, RefusedError, StorageError
from fettle.intervals import students_interval
from fettle.randomness import key
from fettle.router.artifacts import RunFolder, described
from fettle.router.audit import append, entry, read_audit
from fettle.router.evaluation import evaluate, seed_means, write_evaluation
from fettle.router.modes import MODES
from fettle.router.policy import RouterPolicy, load_policy
from fettle.router.promotion import promote, rollback, verdict
from fettle.router.registry import NOTHING, folder_of, in_use, locked, pointer
from fettle.router.training import Row, Spans, Trained, train, untraced
from fettle.tracking.atomic import unwritable

WHO = "autopilot"
ROUND = "round-"
"""Of a round's folder, under ``experiment.output_dir``."""
SEEDS = 2**31
"""As many as there are for rounds to train with: any protocol carries such a number."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that was done, or would be, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class _Round:
    config: RouterConfig
    registry: Path
    gate: PromotionGate
    number: int
    """From 1; no two rounds share their seeds."""
    folder: Path
    """Which this round alone has made."""

    @property
    def dry(self) -> bool:
        return self.config.rllm.autopilot.dry_run

    def noted(self, what: str, why: str, **fields: object) -> Step:
        """A step, on disk before it is told."""
        append(self.registry, entry(what, who=WHO, why=why, round=self.number, dry_run=self.dry, **fields))
        return Step(what, why)


def check_autopilot(config: RouterConfig) -> None:
    """Refuse to begin where a switch is off.

    Raises:
        ConfigError: see above.
    """
    off = switches_of(config)
    if off:
        raise ConfigError(f"the autopilot is switched off by {' and '.join(off)}: set them to true")


def switches_of(config: RouterConfig) -> tuple[str, ...]:
    """Those that keep it off; it needs a folder to leave its rounds in."""
    rllm = config.rllm
    own = {"rllm.autopilot.enabled": rllm.autopilot.enabled, "rllm.experiment.enabled": rllm.experiment.enabled}
    return (*switched_off(config), *(name for name, on in own.items() if not on))


def autopilot(
    config: RouterConfig,
    told: Callable[[Row], None] | None = None,
    spans: Spans = untraced,
    *,
    stopped: Callable[[str], None] | None = None,
    gate: PromotionGate | None = None,
) -> tuple[Step, ...]:
    """One round, from looking again at what is in use to the gate; ``stopped`` is told where a breaker ends it.

    Raises:
        ConfigError: a switch is off.
        FettleError: it could not be trained or written down.
    """
    check_autopilot(config)
    this = _claimed(config, gate or PromotionGate())
    reviewed, trained = _reviewed(this), _trained(this, told, spans)
    if trained.stopped is not None:
        if stopped is not None:
            stopped(trained.stopped)
        return (*reviewed, this.noted("not_promoted", trained.stopped, candidate=str(this.folder)))
    return (*reviewed, *_evaluated(this))


def _claimed(config: RouterConfig, gate: PromotionGate) -> _Round:
    """The next round, of which another that begins at the same time sees that it has begun."""
    registry, output = Path(config.rllm.autopilot.registry), Path(config.rllm.experiment.output_dir)
    with locked(registry):  # which makes it
        rounds = [each.get("round", 0) for each in read_audit(registry).entries if each["who"] == WHO]
        number = 1 + max(rounds, default=0)
        try:
            output.mkdir(parents=True, exist_ok=True)
            while not _made(folder := output / f"{ROUND}{number:04}"):
                number += 1  # a round of another registry, or of one that is gone
        except OSError as error:
            raise StorageError(unwritable(output, error)) from error
        this = _Round(config, registry, gate, number, folder)
        this.noted("begun", f"its folder is {folder}")
    return this


def _made(folder: Path) -> bool:
    """Whether it was this call that made it."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _reviewed(this: _Round) -> tuple[Step, ...]:
    """What is in use, held on seeds that no round has seen to what was in use before it, in the world of now."""
    evaluation, world = this.config.rllm.evaluation, described(this.config, config_path="", updates=0)
    try:
        found, current = in_use(this.registry), pointer(this.registry)
        if found is None or current is None:
            return ()
        rivals = _before(this.registry, current.before)
    except CheckpointError as error:
        return (this.noted("not_reviewed", error.message),)
    if any(each.metadata["features"] != world["features"] for each in (found[1], *rivals.values()) if _learned(each)):
        return (this.noted("not_reviewed", f"version {found[0]} was trained on other features than the settings name"),)

    def means(who: Any) -> list[float]:
        name = f"held out/{ROUND}{this.number}"
        return seed_means(who, world, seeds=evaluation.seeds, episodes=evaluation.episodes, name=name)

    own = means(found[1])
    against, best = max(((name, means(who)) for name, who in rivals.items()), key=lambda pair: float(np.mean(pair[1])))
    mean, low, high = students_interval([mine - its for mine, its in zip(own, best, strict=True)])
    numbers = {"mean": mean, "low": low, "high": high, "seeds": evaluation.seeds, "against": against}
    words = f"version {found[0]} earns {mean:+.4f} a decision over {against}, 95 % [{low:+.4f}, {high:+.4f}]"
    if high >= 0:
        return (this.noted("reviewed", words, comparison=numbers),)
    if this.dry:
        return (this.noted("would_roll_back", words, comparison=numbers),)
    this.noted("reviewed", words, comparison=numbers)
    try:
        rollback(this.registry, who=WHO, why=words, expected=found[0])
    except (RefusedError, BusyError) as error:
        return (this.noted("not_rolled_back", error.message),)
    return (Step("rolled_back", words),)


def _before(registry: Path, version: int) -> Mapping[str, Any]:
    """By name: the version to which a rollback goes, or every fixed mode where it goes to none."""
    if version == NOTHING:
        return {f"{mode} alone": mode for mode in MODES}
    return {f"version {version}": load_policy(folder_of(registry, version))}


def _learned(who: object) -> bool:
    return isinstance(who, RouterPolicy)


def _trained(this: _Round, told: Callable[[Row], None] | None, spans: Spans) -> Trained:
    """Train with a seed of the round's own."""
    rllm = this.config.rllm
    experiment = rllm.experiment.model_copy(update={"output_dir": str(this.folder)})
    seed = key(rllm.trainer.seed, "router", "round", this.number) % SEEDS
    trainer = rllm.trainer.model_copy(update={"seed": seed})
    config = RouterConfig(rllm=rllm.model_copy(update={"experiment": experiment, "trainer": trainer}))
    return train(config, RunFolder(config, None), told, spans)


def _evaluated(this: _Round) -> tuple[Step, ...]:
    """Evaluate what was trained as the gate asks, and ask it."""
    found = evaluate(load_policy(this.folder), seeds=this.gate.seeds, episodes=this.gate.episodes)
    write_evaluation(found, this.folder)
    words = f"{found.policy.mean:.4f} a decision on held-out seeds (simulated)"
    done = this.noted("retrained", words, candidate=str(this.folder))
    return done, _gated(this, this.folder)


def _gated(this: _Round, folder: Path) -> Step:
    """What the gate of every promotion says of the round's policy."""
    if not this.dry:
        try:
            found = promote(folder, this.registry, who=WHO, why=f"round {this.number}", gate=this.gate)
        except (RefusedError, BusyError) as error:
            return this.noted("not_promoted", error.message, candidate=str(folder))
        words = f"version {found.version}: {found.comparison.mean:+.4f} a decision over {found.comparison.against}"
        return Step("promoted", words)
    weighed = verdict(folder, this.registry, gate=this.gate)
    if weighed.refused is not None or weighed.comparison is None:
        return this.noted("would_not_promote", weighed.refused or "it was not weighed", candidate=str(folder))
    words = f"{folder}: {weighed.comparison.mean:+.4f} a decision over {weighed.comparison.against}"
    return this.noted("would_promote", words, candidate=str(folder))
