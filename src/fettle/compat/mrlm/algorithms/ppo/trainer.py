"""PPO on a model in memory: it is lent to the local engine, trained by the one reinforcement loop, and given back."""

import asyncio
import statistics
import tempfile
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from transformers import AutoModelForCausalLM

from fettle.broker import Broker
from fettle.compat.mrlm.algorithms.ppo.config import PPOConfig, engine_settings, recipe
from fettle.compat.mrlm.core import BaseEnvironment, EnvironmentMode, LLMEnvironment
from fettle.compat.mrlm.suite import ResetSuite
from fettle.config import RLRun, Sampling, SamplingParams
from fettle.engine.local import LocalBackend
from fettle.errors import ConfigError, ModelError
from fettle.tracking import FileTracker, RunFolder, Transcript, tee
from fettle.training import Session, evaluate, rl

Result = TypeVar("Result")

LONGEST = 2048
"""Tokens that a sequence is taken to have at most when ``mini_batch_size`` of them are to fit."""

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "policy/loss": "loss/total",
        "policy/entropy": "loss/entropy",
        "critic/value_loss": "loss/value",
        "critic/explained_variance": "diagnostics/explained_variance",
        "policy/kl_sampler": "diagnostics/approx_kl",
        "policy/clip_fraction": "diagnostics/clip_fraction",
        "heldout/reward": "eval/mean_reward",
    }
)
"""The documented names of what the loop tells; whatever has none keeps its own."""


class PPOTrainer:
    """Satisfies ``BaseTrainer``."""

    def __init__(
        self,
        policy_env: LLMEnvironment,
        eval_envs: Sequence[BaseEnvironment],
        config: PPOConfig | None = None,
        output_dir: str | Path | None = None,
    ) -> None:
        """``eval_envs`` are where the policy acts, both to learn and to be evaluated. Without an ``output_dir`` nothing
        is left on disk.

        Raises:
            ConfigError: the policy is frozen, in whole or in part, or there is no environment.
            EnvironmentFault: an environment cannot be reset or copied.
        """
        if policy_env.mode is not EnvironmentMode.SERVER:
            raise ConfigError("policy_env is frozen: make it with mode=EnvironmentMode.SERVER")
        if not all(parameter.requires_grad for parameter in policy_env.model.parameters()):
            raise ConfigError("some of the model's weights are frozen, and PPOTrainer trains all: unfreeze them")
        if not eval_envs:
            raise ConfigError("eval_envs is empty: give at least one environment to learn in")
        self.policy_env = policy_env
        self.config = config or PPOConfig()
        self.metrics_history: list[dict[str, float]] = []
        """A row for each epoch that is told of, and one for each evaluation."""
        self._output = output_dir
        share = -(-self.config.eval_episodes // len(eval_envs))
        self._suites = [
            ResetSuite(
                f"{type(environment).__name__}-{number}" if len(eval_envs) > 1 else type(environment).__name__,
                environment,
                heldout=share,
                max_steps=self.config.max_episode_length,
                system_prompt=policy_env.system_prompt,
            )
            for number, environment in enumerate(eval_envs)
        ]

    def train(self) -> list[dict[str, float]]:
        """Train for ``num_epochs`` from the weights as they are; the model then holds those of the last epoch."""
        with ExitStack() as held:
            root = self._output or held.enter_context(tempfile.TemporaryDirectory())
            trained = _carried_out(self._trained(RunFolder.create(Path(root), "ppo")))
            self.load_checkpoint(trained)
        return self.metrics_history

    def evaluate(self) -> dict[str, float]:
        """Play the episodes kept for evaluation with the model as it is: rewards, and how many turns they took."""
        with tempfile.TemporaryDirectory() as scratch:
            return _carried_out(self._evaluated(Path(scratch)))

    def save_checkpoint(self, folder: str | Path) -> None:
        """Write the model and its tokenizer, as transformers loads them."""
        self.policy_env.model.save_pretrained(folder)
        self.policy_env.tokenizer.save_pretrained(folder)

    def load_checkpoint(self, folder: str | Path) -> None:
        """Put the weights in ``folder`` into the model, which stays the same object.

        Raises:
            ModelError: there is no model, or one of another shape.
        """
        try:
            found = AutoModelForCausalLM.from_pretrained(folder)
            self.policy_env.model.load_state_dict(found.state_dict())
        except (OSError, ValueError, RuntimeError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise ModelError(
                f"the weights in {folder} cannot be put into this model ({first_line}): give a folder that "
                "save_checkpoint wrote for a model of the same shape"
            ) from error

    async def _trained(self, place: RunFolder) -> str:
        """The folder of the last checkpoint."""
        folder = RunFolder.at(place.path)
        model = self._lent(folder.path)
        run = self._recipe(model)
        history = _History(self.metrics_history, every=self.config.log_every)
        with closing(FileTracker(folder)) as files, self._engine(folder.checkpoints) as engine:
            session = Session(
                folder, tee([files, history]), checkpoints=run.checkpoints, steps=run.steps, stop=asyncio.Event()
            )
            summary = await rl.train(
                run, engine=engine, suites=self._suites, template=self.policy_env.template, session=session
            )
        return summary.checkpoint

    async def _evaluated(self, scratch: Path) -> dict[str, float]:
        run = self._recipe(self._lent(scratch))
        params = SamplingParams(
            max_tokens=run.sampling.max_tokens,
            temperature=run.sampling.temperature,
            stop_token_ids=tuple(sorted(self.policy_env.template.end_token_ids)),
        )
        with self._engine(scratch) as engine:
            found = await evaluate(
                self._suites,
                tasks=run.evaluation.tasks,
                samples=run.evaluation.samples,
                sampler=await engine.sampler(str(run.policy.model)),
                template=self.policy_env.template,
                params=params,
                seed=run.seed,
            )
        rewards = [trajectory.reward for trajectory in found.trajectories]
        return {
            "eval/mean_reward": found.reward,
            "eval/max_reward": max(rewards),
            "eval/min_reward": min(rewards),
            "eval/mean_length": statistics.fmean(len(trajectory.turns) for trajectory in found.trajectories),
        }

    def _recipe(self, model: str) -> RLRun:
        drawn = self.policy_env.generation_config
        heldout = tuple(len(suite.heldout_tasks()) for suite in self._suites)
        sampling = Sampling(max_tokens=drawn.max_new_tokens, temperature=drawn.temperature)
        return recipe(self.config, model=model, heldout=heldout, sampling=sampling)

    def _lent(self, folder: Path) -> str:
        """Where the engine finds the model as it is now."""
        model = folder / "model"
        self.save_checkpoint(model)
        return str(model.resolve())

    @contextmanager
    def _engine(self, checkpoints: Path) -> Iterator[Broker]:
        config = self.policy_env.model.config.get_text_config()
        context = min(getattr(config, "max_position_embeddings", LONGEST), LONGEST)
        broker = Broker(LocalBackend(engine_settings(self.config, context=context), checkpoints=checkpoints))
        try:
            yield broker
        finally:
            broker.close()


class _History:
    """Satisfies ``Tracker``: rows in memory, under their documented names."""

    def __init__(self, rows: list[dict[str, float]], *, every: int) -> None:
        self._rows = rows
        self._every = every

    def log(self, step: int, row: Mapping[str, float]) -> None:
        if step % self._every == 0 or "heldout/reward" in row:
            self._rows.append({"epoch": float(step), **{NAMES.get(name, name): value for name, value in row.items()}})

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Nobody reads them here; the run's folder has them."""

    def close(self) -> None:
        """Nothing is held open."""


def _carried_out(work: Coroutine[Any, Any, Result]) -> Result:
    """The result, awaited in a thread of its own where an event loop is already running, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
