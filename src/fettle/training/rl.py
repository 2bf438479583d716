"""Reinforcement learning: draw a batch, learn from it, evaluate. One loop for every engine and every preset."""

from collections.abc import Mapping, Sequence
from functools import partial

from fettle.chat import Template
from fettle.config import RLRun
from fettle.data import Conversation
from fettle.engine import Engine, Policy, Sampler
from fettle.environments import GameSuite, Suite
from fettle.rollouts import stream
from fettle.rollouts.trajectories import transcript
from fettle.training.critic import PART, critic_spec, policy_spec
from fettle.training.drawing import Drawer
from fettle.training.evaluation import Evaluation, evaluate
from fettle.training.learned import learned_row, reward_model
from fettle.training.learning import Learner
from fettle.training.monitor import alarm_row
from fettle.training.off_policy import PART as REPLAY
from fettle.training.off_policy import Memory
from fettle.training.planning import Planner
from fettle.training.players import Players, of_player, sides
from fettle.training.rehearsal import Rehearser
from fettle.training.session import Session, Summary
from fettle.training.timing import Stopwatch
from fettle.training.trust import pulls_to_reference
from fettle.training.watching import alarms, signs

TRANSCRIPTS = 8
"""Held-out conversations written out at each evaluation."""


async def train(
    run: RLRun,
    *,
    engine: Engine,
    suites: Sequence[Suite | GameSuite],
    template: Template,
    session: Session,
    rehearsed: Sequence[Conversation] = (),
    templates: Mapping[str, Template] | None = None,
) -> Summary:
    """Train a policy on the suites' tasks, from where the session stands to its last step.

    ``rehearsed`` are the demonstrations of ``run.rehearsal``, ``templates`` those of other models that players name.

    Raises:
        ConfigError: ``run.players`` names a player that no game has.
        DataError: there is a rehearsal, and nothing to rehearse.
        EnvironmentFault: every episode of a step failed.
    """
    watch = Stopwatch()
    policy = watch.policy(await session.policy(engine, policy_spec(run)))
    spec = critic_spec(run)
    critic = watch.policy(await session.policy(engine, spec, part=PART)) if spec is not None else None
    players = Players(run, policy, template, engine=engine, session=session, templates=templates or {})
    await players.join(suites)
    drawer = Drawer(run, suites, template, policy, players=players, scorer=await reward_model(run, engine))
    rehearser = Rehearser(run.rehearsal, rehearsed, template, seed=run.seed) if run.rehearsal is not None else None
    learner = await _learner(run, engine, template, session, watch, policy, critic, rehearser)
    others = await _others(players, engine, watch)
    if session.progress.checkpoint is None:
        await _evaluate(run, drawer, players, learner, session, done=0)
        await session.finish_step(policy, 0)
    ahead = run.max_staleness // (run.minibatches * run.epochs)
    watch.restart()
    async for step, batch in stream(session.remaining, drawer.draw, ahead=ahead, barriers=session.barriers()):
        watch.received()
        row = await learner.learn(step, batch)
        await drawer.updated()
        row |= {**batch.row, **learned_row(batch.groups)}
        for name, other in others.items():
            row |= of_player(name, await other.learn(step, batch.others[name]))
        told = await engine.statistics()
        row |= {name if "/" in name else f"engine/{name}": value for name, value in told.items()}
        row |= watch.row(scoring=batch.scoring)
        row["speed/tokens_per_second"] = batch.drawn_tokens / row["time/step"]
        session.log(step + 1, row)
        session.carry(learner.state)
        session.failures(step + 1, "training", batch.failures)
        await players.moved_on(step + 1)
        if (step + 1) % run.evaluation.every == 0 or step + 1 == run.steps:
            await _evaluate(run, drawer, players, learner, session, done=step + 1)
        if await session.finish_step(policy, step + 1):
            break
        watch.restart()
    for model in (policy, critic):
        if model is not None:
            await model.close()
    await players.close()
    return session.summary()


async def _learner(
    run: RLRun,
    engine: Engine,
    template: Template,
    session: Session,
    watch: Stopwatch,
    policy: Policy,
    critic: Policy | None,
    rehearser: Rehearser | None,
) -> Learner:
    """What learns from the batches, as it was at the newest checkpoint."""
    return Learner(
        run,
        policy,
        critic=critic,
        reference=await _reference(run, engine, watch),
        teacher=await _read(engine, run.teacher.model, watch) if run.teacher is not None else None,
        planner=Planner(run.planning, template) if run.planning is not None else None,
        rehearser=rehearser,
        memory=_memory(run, session),
        state=session.progress.state,
    )


async def _read(engine: Engine, weights: str, watch: Stopwatch) -> Sampler:
    """What is asked for log-probabilities only."""
    return watch.sampler(await engine.sampler(weights))


def _memory(run: RLRun, session: Session) -> Memory | None:
    """The groups that are learned from again, as they were at the newest checkpoint."""
    if run.replay is None:
        return None
    memory = Memory(run.replay, seed=run.seed, checkpoints=session.folder.checkpoints)
    newest = session.keep(REPLAY, memory)
    if newest is not None:
        memory.restore(newest)
    return memory


async def _others(players: Players, engine: Engine, watch: Stopwatch) -> dict[str, Learner]:
    """Who learns beside the policy: players that have policies of their own."""
    runs = players.runs()
    return {
        name: Learner(runs[name], watch.policy(policy), reference=await _reference(runs[name], engine, watch))
        for name, policy in players.own.items()
    }


async def _reference(run: RLRun, engine: Engine, watch: Stopwatch) -> Sampler | None:
    """What the KL penalty pulls to, if there is one."""
    if not pulls_to_reference(run):
        return None
    return await _read(engine, run.reference or str(run.policy.model), watch)


async def _evaluate(
    run: RLRun, drawer: Drawer, players: Players, learner: Learner, session: Session, *, done: int
) -> Evaluation:
    params = drawer.params("evaluation").model_copy(update={"temperature": run.evaluation.temperature})
    result = await evaluate(
        drawer.suites,
        tasks=run.evaluation.tasks,
        sampler=await learner.policy.sampler(),
        template=drawer.template,
        params=params,
        limits=run.limits,
        seed=run.seed,
        samples=run.evaluation.samples,
        opponents=await players.opponents(drawer.suites, params),
        sides=partial(sides, run),
    )
    row = result.row
    if drawer.scorer is not None and run.reward_model is not None:
        row |= await drawer.scorer.heldout_row(result.trajectories)
        row |= alarm_row([*session.progress.evaluations, row], run.reward_model.monitor)
    row |= signs(result.trajectories)
    row |= alarms([*session.progress.evaluations, row], run.alarms)
    await session.evaluated(learner.policy, done, result.reward, row)
    transcripts = list(map(transcript, result.trajectories))
    session.transcripts(done, transcripts[:TRANSCRIPTS])
    session.episodes(done, transcripts)
    session.failures(done, "evaluation", result.failures)
    return result
