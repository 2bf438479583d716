"""Where the numbers of a run are told besides its own folder: MLflow, and the like."""

from collections.abc import Mapping

from fettle.compat.rllm.config import RLLMConfig
from fettle.config.load import leaves
from fettle.errors import ConfigError
from fettle.tracking.sinks import Described, Sink, open_sink

EXPERIMENT = "rllm_training"


class MLIntegration:
    """A run's numbers for whoever ``report_to`` names.

    What fails once it is open is told in the log, and ends nothing: the run's own folder has every row.
    """

    def __init__(self, config: RLLMConfig) -> None:
        self._config = config
        self._experiment = EXPERIMENT
        self._destination = ""
        self._run = ""
        self._sinks: list[Sink] = []

    async def setup_mlflow(
        self, experiment_name: str = EXPERIMENT, tracking_uri: str = "", run_name: str | None = None
    ) -> None:
        """Under which experiment and name, and at which address runs are told; empty: where MLflow itself writes."""
        self._experiment, self._destination, self._run = experiment_name, tracking_uri, run_name or ""

    def begin(self, name: str) -> None:
        """Open what is named, for a run of that name unless there is another.

        Raises:
            ConfigError: a package is not installed, or a run is under way.
            StorageError: something cannot be opened.
        """
        if self._sinks:
            raise ConfigError("a run is told of already: end it first")
        run = Described(
            name=self._run or name,
            description="",
            tags=("issues",),
            project=self._experiment,
            entity="",
            settings={path: value for path, _, _, value in leaves(self._config)},
            simulated=False,
        )
        for kind in self._config.training.report_to:
            self._sinks.append(open_sink(kind, self._destination if kind == "mlflow" else "", run))

    def log_training_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """A row, if it is one of those that ``logging_steps`` asks for, or tells what was held out."""
        if step % self._config.training.logging_steps == 0 or any(name.startswith("heldout/") for name in metrics):
            for sink in self._sinks:
                sink.log(step, metrics)

    def end(self, *, failed: bool) -> None:
        """Nothing more will come; whether the run came to grief."""
        sinks, self._sinks = self._sinks, []
        for sink in sinks:
            sink.close(failed=failed)
