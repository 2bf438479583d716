"""What a batch does to the policy and its critic: shaped, scored, credited, and then the optimizer steps."""

from collections.abc import Mapping, Sequence

from fettle.config import RLRun
from fettle.engine import Policy, Sampler
from fettle.rollouts import Group
from fettle.training.correction import corrected, reweighted
from fettle.training.credit import credited, scored, shaped, teaching
from fettle.training.critic import critic_optimizer, judged, valued, warming_up, with_value
from fettle.training.distillation import distilled
from fettle.training.drawing import Batch
from fettle.training.metrics import batch_row, credit_row, critic_row, divergence, outcome_row
from fettle.training.off_policy import Memory
from fettle.training.planning import Planner
from fettle.training.rehearsal import Rehearser
from fettle.training.trust import controlled, first_state, held, with_kl_coefficient
from fettle.training.updates import Update, made, updates
from fettle.types import Datum


class Learner:
    """The policy, and what it learns with."""

    def __init__(
        self,
        run: RLRun,
        policy: Policy,
        *,
        critic: Policy | None = None,
        reference: Sampler | None = None,
        teacher: Sampler | None = None,
        planner: Planner | None = None,
        rehearser: Rehearser | None = None,
        memory: Memory | None = None,
        state: Mapping[str, float] | None = None,
    ) -> None:
        """``critic`` is one of its own, ``state`` what an earlier learner of this run left."""
        self.policy = policy
        self.state = first_state(run) | dict(state or {})
        """Coefficients that follow what is measured; with them a run goes on as it would have."""
        self._run = run
        self._critic = critic
        self._reference = reference
        self._teacher = teacher
        self._planner = planner
        self._rehearser = rehearser
        self._memory = memory

    async def learn(self, step: int, batch: Batch) -> dict[str, float]:
        """Learn from one batch; returns the step's metrics."""
        run = with_kl_coefficient(self._run, self.state)
        new = len(batch.groups)
        recalled, row = self._recalled(step, batch)
        groups = [shaped(g, run) for g in (*batch.groups, *recalled)]
        # Whatever is measured of the batch is measured before the update, in one go for all minibatches.
        data, mismatch = await corrected(await scored(groups, self._reference), self.policy, run.correction)
        data, added = await self._added(await self._credited(groups, data, run), run)
        row = {**row, **mismatch, **added, **batch_row(batch, groups[:new]), **divergence(data[:new])}
        row |= {**credit_row(data), **critic_row(data)}
        if self._critic is not None and run.critic is not None:
            # A critic of its own learns from every batch, whatever becomes of the policy's updates.
            wanted = updates(data, run, critic_optimizer(run), step=step)
            row |= outcome_row(await made(self._critic, wanted, run.critic.value), "critic")
        if not warming_up(run, step):
            rehearsed = await self._rehearser.add(self.policy, step) if self._rehearser is not None else {}
            row |= {**rehearsed, **await self._policy_updated(step, data, run, batch=batch)}
        row |= self._controlled(row, episodes=sum(map(len, data[:new])))
        return row

    def _recalled(self, step: int, batch: Batch) -> tuple[list[Group], dict[str, float]]:
        """Groups of earlier steps, where they are learned from again."""
        if self._memory is None:
            return [], {}
        return self._memory.recalled(batch.groups, step=step, policy_version=batch.policy_version)

    async def _added(
        self, data: Sequence[Sequence[Datum]], run: RLRun
    ) -> tuple[Sequence[Sequence[Datum]], dict[str, float]]:
        """What advantages gain beside the rewards: planning counts more, then a teacher has its say.

        The correction comes last, as it is of whatever the sampler's tokens are credited with.
        """
        data, planning = self._planner.credited(data) if self._planner is not None else (data, {})
        data, distillation = await distilled(data, self._teacher, run.teacher)
        return reweighted(data), {**planning, **distillation}

    async def _credited(
        self, groups: Sequence[Group], data: Sequence[Sequence[Datum]], run: RLRun
    ) -> list[list[Datum]]:
        """The data with advantages, measured against the critic where there is one."""
        if run.critic is None:
            return credited(groups, data, run)
        flat = [datum for rows in data for datum in rows]
        judgements = iter(judged(groups, await valued(flat, self._critic or self.policy), run, run.critic))
        return [[next(judgements) for _ in rows] for rows in data]

    async def _policy_updated(
        self, step: int, data: Sequence[Sequence[Datum]], run: RLRun, *, batch: Batch
    ) -> dict[str, float]:
        """The optimizer steps of a batch, under a trust region if there is one."""
        loss, region = with_value(run.loss, run.critic), run.trust_region
        wanted = updates(data, run, run.optimizer, step=step)
        if region is None:
            outcomes = await made(self.policy, [Update(teaching(u.data, loss), u.adam) for u in wanted], loss)
            row: Mapping[str, float] = {}
        else:
            result = await held(self.policy, wanted, loss, region, self.state["trust_coefficient"])
            self.state["trust_coefficient"] = result.coefficient
            outcomes, row = result.outcomes, result.row
        trained = outcomes[0][1].policy_version - 1
        return {
            **outcome_row(outcomes, "policy"),
            "policy/learning_rate": wanted[0].adam.learning_rate,
            "policy/lag": float(trained - batch.policy_version),
            "policy/lag_mean": trained - batch.mean_version,
            **row,
        }

    def _controlled(self, row: Mapping[str, float], *, episodes: int) -> dict[str, float]:
        """The KL penalty's coefficient moves on; returns the one that this step used."""
        if self._run.kl_control is None:
            return {}
        used = self.state["kl_coefficient"]
        self.state["kl_coefficient"] = controlled(self._run.kl_control, used, row["policy/kl"], episodes=episodes)
        return {"policy/kl_coefficient": used}
