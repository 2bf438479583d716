"""Where the numbers of a run are told besides its own folder: trackers of the recipe, by their documented names."""

from typing import Any

from fettle.compat.rllm.config import EXPERIMENT, RLLMConfig


class MLIntegration:
    """The trackers that ``report_to`` names, as a recipe has them: each stage is a run of theirs."""

    def __init__(self, config: RLLMConfig) -> None:
        self._config = config

    async def setup_mlflow(self, experiment_name: str = EXPERIMENT, tracking_uri: str | None = None) -> None:
        """Under which experiment runs are filed, and at which address; None: MLflow's own choice.

        Every trainer that is given the same config tells it there.
        """
        self._config.set_mlflow(experiment_name, tracking_uri)

    def trackers(self) -> list[dict[str, Any]]:
        """Settings of a recipe's ``trackers``; none, where nobody is to be told."""
        experiment, uri = self._config.mlflow
        known: dict[str, dict[str, Any]] = {
            "mlflow": {"experiment": experiment, "uri": uri},
            "wandb": {"project": experiment},
            "tensorboard": {},
        }
        return [{"type": name, **known[name]} for name in self._config.training.report_to]
