"""The settings of the routing policy: ``configs/policy/rllm.yaml``. Everything in it is off until it is switched on."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.remote import LAST_PORT, RemoteTLS, loopback
from fettle.config.routing import REGISTRY

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class RolloutService(Frozen):
    """Episodes played at a server of environments, in place of this process: the same numbers for the same seed."""

    enabled: bool = False
    """Play them there."""
    address: Annotated[str, Field(pattern=r"^(https?://)?(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}/?$")] = (
        "http://localhost:8080"
    )
    """Where ``fettle environments serve routing --port 8080`` listens; with ``https`` it is spoken to in TLS."""
    token_variable: str | None = None
    """Environment variable that holds the token which the server asks for."""
    token_file: str | None = None
    """File that holds the token, in the place of ``token_variable``."""
    tls: RemoteTLS = RemoteTLS()
    """How the server is known where the address begins with ``https``."""
    patience: Positive = 60.0
    """Seconds for which a server that is away is asked again."""

    @model_validator(mode="after")
    def _safe(self) -> "RolloutService":
        if self.token_variable is not None and self.token_file is not None:
            raise ValueError("token_variable and token_file are two places for one token: set one of them")
        if not self.encrypted and not loopback(self.place.rpartition(":")[0].strip("[]")):
            raise ValueError(f"address is {self.address}, another machine's, in the clear: let it begin with https://")
        if not self.encrypted and self.tls != RemoteTLS():
            raise ValueError(f"tls is set, and address is {self.address}, in the clear: let it begin with https://")
        if not 0 < int(self.place.rpartition(":")[2]) <= LAST_PORT:
            raise ValueError(f"address is {self.address}, and ports go from 1 to {LAST_PORT}: change its last number")
        return self

    @property
    def encrypted(self) -> bool:
        """Whether TLS is spoken."""
        return self.address.startswith("https://")

    @property
    def place(self) -> str:
        """Host and port."""
        return self.address.rpartition("//")[2].rstrip("/")


class RouterTrainer(Frozen):
    """Who trains, and for how long; the command line's flags go before these."""

    enabled: bool = False
    """The second switch of training, beside ``rllm.enabled``."""
    backend: Literal["trlx", "ppo"] = "trlx"
    """Two documented names of one trainer, the PPO that also trains language models; no package of either is used."""
    updates: Count = 4
    """Rollouts drawn and learned from, counted from the beginning of the run."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What every draw of the run is made from."""
    episode_length: Count = 64
    """Decisions after which an episode is cut short."""
    parallel: Count = 32
    """Episodes played at once, at most: as many as divide ``ppo.rollout_length``."""
    target_kl: Positive | None = 0.02
    """An update ends early once the policy is this far from the one that drew the rollout, in nats; null never."""
    normalize_values: bool = True
    """The critic learns returns brought to mean 0 and deviation 1, so that it learns alike at any scale of reward."""


class RouterEvaluation(Frozen):
    """After training, the policy is held against every fixed mode on seeds that it was not trained on."""

    enabled: bool = False
    """Evaluate, and fail the run where the policy is worse than the best fixed mode."""
    seeds: Annotated[int, Field(ge=2)] = 10
    """Held-out seeds; the interval is over their means."""
    episodes: Count = 256
    """Episodes played on each."""


class Autopilot(Frozen):
    """Retraining, evaluation, promotion and rollback without a person, by ``fettle router autopilot``."""

    enabled: bool = False
    """Switch it on."""
    dry_run: bool = True
    """Train and evaluate, and write down what would be promoted or rolled back, without doing either."""
    registry: Annotated[str, Field(min_length=1)] = REGISTRY
    """The folder of promoted policies, and of the log of what was done."""


class RouterPPO(Frozen):
    """PPO by its documented names."""

    rollout_length: Count = 2048
    """Decisions drawn for one update."""
    mini_batch_size: Count = 256
    """Decisions of one optimizer step, at most ``rollout_length``."""
    update_epochs: Count = 4
    """Passes over a rollout."""
    gamma: Share = 0.99
    """γ, the discount a decision."""
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """λ of generalised advantage estimation."""
    clip_coef: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """ε: ratios beyond 1 ± ε earn no more credit."""
    value_loss_coef: Weight = 0.5
    """What the critic's loss is multiplied by; 0 leaves the critic as it began."""
    entropy_coef: Weight = 0.01
    """What the entropy is multiplied by before it is taken off the loss."""
    learning_rate: Positive = 3e-4
    """Step size of Adam."""
    max_grad_norm: Positive = 1.0
    """Gradients are scaled down to this norm."""

    @model_validator(mode="after")
    def _a_batch_fits_a_rollout(self) -> "RouterPPO":
        if self.mini_batch_size > self.rollout_length:
            raise ValueError(
                f"mini_batch_size is {self.mini_batch_size}, more than rollout_length, which is "
                f"{self.rollout_length}: lower it"
            )
        return self


class RouterRewardWeights(Frozen):
    """What a decision earns: throughput and reliability count for it, the others against it."""

    throughput: Weight = 1.0
    """Work done."""
    reliability: Weight = 0.5
    """How right the answer was."""
    latency: Weight = 0.75
    """How long it took."""
    collaboration_cost: Weight = 0.1
    """What the other agents cost."""
    violation: Weight = 1.0
    """Requirements that were not met."""


class RouterCheckpoints(Frozen):
    """States of training that a run can go on from."""

    enabled: bool = False
    """Keep them."""
    frequency_steps: Count = 1000
    """Decisions between two; one is kept at the end of the update in which they have passed."""
    keep_last_n: Count = 5
    """Older ones are deleted."""


class Experiment(Frozen):
    """What a run leaves on disk."""

    enabled: bool = False
    """Write artifacts; otherwise nothing is written."""
    name: str = "naestro-rllm"
    """What the run is called in its metadata."""
    description: str = ""
    """What it is for."""
    tags: tuple[str, ...] = ()
    """Words to find it by."""
    output_dir: Annotated[str, Field(min_length=1)] = "outputs/rllm"
    """The folder, from where the command is given; what an earlier run left there is replaced."""
    resume: bool = False
    """Go on from the newest checkpoint in the folder; without one, from the beginning."""
    checkpointing: RouterCheckpoints = RouterCheckpoints()
    """States that ``resume`` goes on from."""

    @model_validator(mode="after")
    def _there_is_a_folder_to_go_on_in(self) -> "Experiment":
        if self.resume and not self.enabled:
            raise ValueError("resume is true, and without a folder nothing can go on: set experiment.enabled to true")
        return self


class LogFile(Frozen):
    """A log of the run, one JSON object a line."""

    enabled: bool = False
    """Write it."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Nothing below this is written."""
    destination: str = "logs/rllm.log"
    """The file; it is added to."""


class MetricsExport(Frozen):
    """Curves sent elsewhere, under the experiment's name, description and tags."""

    enabled: bool = False
    """Send them."""
    backend: Literal["wandb", "mlflow", "tensorboard", "prometheus"] = "wandb"
    """Where to. Each needs the extra of that name; ``prometheus`` needs ``server``."""
    destination: str = ""
    """A server of W&B, a tracking address of MLflow, a folder, or the host and port of a page; empty: its own place."""
    project: Annotated[str, Field(min_length=1)] = "naestro"
    """Under which name; an experiment of MLflow."""
    entity: str = ""
    """Whose it is."""
    tags: tuple[str, ...] = ()
    """Words to find it by, beside those of the experiment."""


class TracingExport(Frozen):
    """Spans sent elsewhere: one a run, and in it one for each rollout and each update."""

    enabled: bool = False
    """Send them."""
    exporter: Literal["otlp", "otlp_http"] = "otlp"
    """OTLP over gRPC, or over HTTP. Both need the extra ``otel``."""
    endpoint: str = "http://localhost:4317"
    """Where the collector is; over HTTP with its path, as http://localhost:4318/v1/traces."""


class RouterObservability(Frozen):
    """What is told of a run besides its artifacts."""

    enabled: bool = False
    """The master switch: while it is off, so is everything below."""
    logging: LogFile = LogFile()
    """A log file."""
    metrics: MetricsExport = MetricsExport()
    """Curves sent elsewhere."""
    tracing: TracingExport = TracingExport()
    """Spans sent elsewhere."""


class LegacySimulator(Frozen):
    """The documented dynamics, draw for draw. Working alone is best in every state of it."""

    type: Literal["legacy"] = "legacy"


class TasksSimulator(Frozen):
    """Tasks that differ in difficulty, stakes, budget and deadline: no one mode is best for all of them."""

    type: Literal["tasks"] = "tasks"
    task_length: Count = 4
    """Decisions that a task takes, on average."""


SimulatorConfig = Annotated[LegacySimulator | TasksSimulator, Field(discriminator="type")]
"""Where decisions are tried out."""


class LinearHeads(Frozen):
    """One layer from the observation to the modes, and one to the value."""

    type: Literal["linear"] = "linear"


class MLPHeads(Frozen):
    """A hidden layer before each of the two."""

    type: Literal["mlp"] = "mlp"
    hidden: Count = 64
    """Units of each hidden layer."""


HeadsConfig = Annotated[LinearHeads | MLPHeads, Field(discriminator="type")]
"""What the policy is made of."""


class RouterPlanning(Frozen):
    """More of the credit to decisions that begin a task (HICRA)."""

    enabled: bool = False
    """Give it."""
    alpha: Share = 0.2
    """What is added there, as a share of the advantage's size."""


class CircuitBreakers(Frozen):
    """An update after which one of these is broken is undone, and the run is over."""

    enabled: bool = True
    """Watch."""
    min_entropy: Weight = 0.001
    """Entropy under which the policy has stopped exploring, in nats."""
    max_kl: Positive = 0.5
    """Distance of the policy from the one that drew the rollout, in nats."""
    max_reward_drop: Positive = 1.0
    """By how much the mean reward of a rollout may lie under the best so far, in its rewards' standard deviations."""


class RLLM(Frozen):
    """Training of the router's collaboration policy."""

    enabled: bool = False
    """The first switch of training."""
    rollout_service: RolloutService = RolloutService()
    """Episodes played elsewhere."""
    trainer: RouterTrainer = RouterTrainer()
    """Who trains, and for how long."""
    evaluation: RouterEvaluation = RouterEvaluation()
    """Held-out seeds after training."""
    autopilot: Autopilot = Autopilot()
    """Retraining without a person."""
    ppo: RouterPPO = RouterPPO()
    """How it is trained."""
    reward_weights: RouterRewardWeights = RouterRewardWeights()
    """What a decision earns."""
    experiment: Experiment = Experiment()
    """What is left on disk."""
    observability: RouterObservability = RouterObservability()
    """What else is told."""
    simulator: SimulatorConfig = TasksSimulator()
    """Where decisions are tried out."""
    policy: HeadsConfig = LinearHeads()
    """What the policy is made of."""
    hicra: RouterPlanning = RouterPlanning()
    """More of the credit to decisions that begin a task."""
    breakers: CircuitBreakers = CircuitBreakers()
    """What ends a run that goes wrong."""

    @property
    def at_once(self) -> int:
        """Episodes that are played at once: the most, up to ``trainer.parallel``, that divide a rollout."""
        most = min(self.trainer.parallel, self.ppo.rollout_length)
        return next(count for count in range(most, 0, -1) if self.ppo.rollout_length % count == 0)

    @model_validator(mode="after")
    def _episodes_share_a_rollout(self) -> "RLLM":
        if self.at_once == 1 < min(self.trainer.parallel, self.ppo.rollout_length):
            raise ValueError(
                f"ppo.rollout_length is {self.ppo.rollout_length}, which no number from 2 to trainer.parallel, "
                f"{self.trainer.parallel}, divides, so that one episode would be played after the other: change it, or "
                "set trainer.parallel to 1"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _a_log_is_no_simulator(cls, given: Any) -> Any:
        simulator = given.get("simulator") if isinstance(given, dict) else None
        if isinstance(simulator, dict) and simulator.get("type") == "replay":
            raise ValueError(
                "simulator.type is replay, and a log does not say what the modes that were not taken would have "
                "earned: train in tasks, and estimate from the log by fettle router replay LOG RUN"
            )
        return given


class RouterConfig(Frozen):
    """A file of settings for ``fettle router``."""

    rllm: RLLM = RLLM()
    """The block that the documentation speaks of."""


def switched_off(config: RouterConfig) -> tuple[str, ...]:
    """The switches that keep training off, by their dotted names."""
    switches = {"rllm.enabled": config.rllm.enabled, "rllm.trainer.enabled": config.rllm.trainer.enabled}
    return tuple(name for name, on in switches.items() if not on)
