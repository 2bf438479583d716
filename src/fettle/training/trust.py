"""Updates held near where they started, and coefficients that follow what is measured.

Divergences are k3 estimates, as means over trained tokens, in nats a token.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from fettle.advantages import adapted, dual_ascent, proportional, quadratic_penalty, quadratic_slope
from fettle.config import (
    KL,
    AdaptivePenalty,
    HardLimit,
    KLControl,
    LagrangianPenalty,
    PolicyLossConfig,
    QuadraticPenalty,
    Reading,
    RLRun,
    TrustRegion,
)
from fettle.engine import Policy
from fettle.training.metrics import mean_k3
from fettle.training.updates import Outcome, Update, made, submitted
from fettle.types import Datum

Origin = Literal["sampler", "reference"]


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What came of a batch's updates."""

    outcomes: list[Outcome]
    row: Mapping[str, float]
    coefficient: float
    """For the next batch."""


def first_state(run: RLRun) -> dict[str, float]:
    """The coefficients that follow what is measured, as a run starts with them."""
    state = {}
    if run.kl_control is not None and run.loss.kl is not None:
        state["kl_coefficient"] = run.loss.kl.coefficient
    if run.trust_region is not None:
        region = run.trust_region
        state["trust_coefficient"] = region.coefficient if isinstance(region, AdaptivePenalty) else 0.0
    return state


def with_kl_coefficient(run: RLRun, state: Mapping[str, float]) -> RLRun:
    """The recipe, with the coefficient of its KL penalty as it stands now."""
    if run.loss.kl is None or "kl_coefficient" not in state:
        return run
    kl = run.loss.kl.model_copy(update={"coefficient": state["kl_coefficient"]})
    return run.model_copy(update={"loss": run.loss.model_copy(update={"kl": kl})})


def controlled(control: KLControl, coefficient: float, measured: float, *, episodes: int) -> float:
    """The KL penalty's next coefficient, after a batch of so many episodes."""
    if control.kind == "doubling":
        return adapted(coefficient, measured, target=control.target)
    return proportional(coefficient, measured, target=control.target, horizon=control.horizon, samples=episodes)


def pulls_to_reference(run: RLRun) -> bool:
    """Whether anything is measured against the reference."""
    return run.loss.kl is not None or (run.trust_region is not None and run.trust_region.of == "reference")


async def held(
    policy: Policy, wanted: Sequence[Update], loss: PolicyLossConfig, region: TrustRegion, coefficient: float
) -> Held:
    """Make the updates of a batch under a trust region."""
    return await REGIONS[type(region)](policy, wanted, loss, region, coefficient)


async def divergence_now(policy: Policy, data: Sequence[Datum], of: Origin) -> float:
    """How far the policy, as it is now, is from where it is held: KL(μ‖π) of the sampler, KL(π‖ρ) of the reference."""
    now = (await policy.forward(data, Reading(of="logprobs"))).logprobs
    origin = [datum.streams[ORIGINS[of]] for datum in data]
    pairs = (origin, now) if of == "sampler" else (now, origin)
    return mean_k3(*pairs, [datum.loss_mask for datum in data])


async def _quadratic(
    policy: Policy, wanted: Sequence[Update], loss: PolicyLossConfig, region: QuadraticPenalty, coefficient: float
) -> Held:
    """The penalty's slope at the divergence of each minibatch stands in for its square, which is no sum over tokens."""
    outcomes, slopes = [], []
    for update in wanted:
        measured = await divergence_now(policy, update.data, region.of)
        slopes.append(quadratic_slope(measured, limit=region.limit, coefficient=region.coefficient))
        outcomes.append(await submitted(policy, update, _penalised(loss, region.of, slopes[-1])))
    measured = await divergence_now(policy, _batch(wanted), region.of)
    penalty = quadratic_penalty(measured, limit=region.limit, coefficient=region.coefficient)
    return Held(outcomes, _row(measured, sum(slopes) / len(slopes), penalty), coefficient)


async def _following(
    policy: Policy,
    wanted: Sequence[Update],
    loss: PolicyLossConfig,
    region: AdaptivePenalty | LagrangianPenalty,
    coefficient: float,
) -> Held:
    """One coefficient for the whole batch; the next one follows the divergence that its updates led to."""
    outcomes = await made(policy, wanted, _penalised(loss, region.of, coefficient))
    measured = await divergence_now(policy, _batch(wanted), region.of)
    if isinstance(region, AdaptivePenalty):
        following = adapted(coefficient, measured, target=region.target)
    else:
        following = dual_ascent(coefficient, measured, limit=region.limit, rate=region.rate)
    return Held(outcomes, _row(measured, coefficient, coefficient * measured), following)


async def _hard(
    policy: Policy, wanted: Sequence[Update], loss: PolicyLossConfig, region: HardLimit, coefficient: float
) -> Held:
    """The first update that leads beyond the limit is taken back, and the batch is over."""
    batch = _batch(wanted)
    outcomes: list[Outcome] = []
    for update in wanted:
        result, stepped = await submitted(policy, update, loss, undoable=True)
        outcomes.append((result, stepped))
        reached = await divergence_now(policy, batch, region.of)
        if not reached <= region.limit:  # what is no number is beyond it, too
            undone = await policy.undo()
            row = {
                "trust/kl": await divergence_now(policy, batch, region.of),
                "trust/undone": 1.0,
                "policy/version": float(undone.policy_version),
            }
            return Held(outcomes, row, coefficient)
    return Held(outcomes, {"trust/kl": reached, "trust/undone": 0.0}, coefficient)


def _penalised(loss: PolicyLossConfig, of: Origin, coefficient: float) -> PolicyLossConfig:
    if of == "sampler":
        return loss.model_copy(update={"proximal_coefficient": loss.proximal_coefficient + coefficient})
    return loss.model_copy(update={"kl": KL(coefficient=coefficient, estimator="k3")}) if coefficient > 0 else loss


def _batch(wanted: Sequence[Update]) -> list[Datum]:
    """The data of all updates, each sequence once, however many epochs it is in."""
    return list({id(datum): datum for update in wanted for datum in update.data}.values())


def _row(measured: float, coefficient: float, penalty: float) -> dict[str, float]:
    return {"trust/kl": measured, "trust/coefficient": coefficient, "trust/penalty": penalty}


ORIGINS: Mapping[Origin, str] = MappingProxyType({"sampler": "sampling_logprobs", "reference": "reference_logprobs"})
"""The stream that holds each one's log-probabilities."""

REGIONS: Mapping[type[TrustRegion], Callable[..., Awaitable[Held]]] = MappingProxyType(
    {QuadraticPenalty: _quadratic, AdaptivePenalty: _following, LagrangianPenalty: _following, HardLimit: _hard}
)
"""How updates are made under each kind of trust region."""
