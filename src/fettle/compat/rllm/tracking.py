"""What surrounds a run, by its documented names: trackers of the recipe, and the model served under KServe."""

import asyncio
import importlib
import json
from typing import Any

from fettle.compat.rllm.config import EXPERIMENT, RLLMConfig
from fettle.config.load import load_as
from fettle.deploy.sdk import sdk
from fettle.deploy.serving import Serving
from fettle.errors import ConfigError

NAMESPACE = "ml-infrastructure"


class MLIntegration:
    """The trackers that ``report_to`` names, as a recipe has them; each stage is a run of theirs. A model served."""

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

    async def best_run(self, metric: str = "heldout/reward", *, least: bool = False) -> dict[str, Any] | None:
        """MLflow's finished run with the greatest last value of a metric, or the least: its id, name and value.

        None where no finished run has that metric, or nothing is filed under the experiment.

        Raises:
            ConfigError: MLflow is not installed here.
        """
        try:
            mlflow = importlib.import_module("mlflow")
        except ModuleNotFoundError as error:
            raise ConfigError(
                "the best run is for MLflow to say, which is not installed: pip install 'fettle[mlflow]'"
            ) from error
        experiment, uri = self._config.mlflow
        return await asyncio.to_thread(_best, mlflow.MlflowClient(tracking_uri=uri), experiment, metric, least=least)

    async def deploy_model(
        self,
        model_path: str,
        model_name: str,
        namespace: str = NAMESPACE,
        storage_uri: str | None = None,
        *,
        kubeconfig: str | None = None,
    ) -> str:
        """Serve an exported folder under KServe: ``created`` or ``changed``. A namespace that is not there is made.

        ``model_path`` lies on a volume, as CLAIM/FOLDER, unless ``storage_uri`` says where the folder is; without a
        ``kubeconfig`` the cluster is found as kubectl finds it.

        Raises:
            ConfigError: KServe's SDK is not installed here, or KServe takes no model from there.
            UnreachableError: there is no cluster, or it does not answer.
        """
        asked = {"name": model_name, "model_uri": storage_uri or f"pvc://{model_path}", "namespace": namespace}
        serving = load_as(Serving, None, [f"{key}={json.dumps(value)}" for key, value in asked.items()])
        return await asyncio.to_thread(_served, serving, kubeconfig)


def _best(client: Any, experiment: str, metric: str, *, least: bool) -> dict[str, Any] | None:
    filed = client.get_experiment_by_name(experiment)
    if filed is None:
        return None
    order = [f"metrics.`{metric}` {'ASC' if least else 'DESC'}"]
    runs = client.search_runs([filed.experiment_id], "attributes.status = 'FINISHED'", order_by=order)
    found = next((run for run in runs if metric in run.data.metrics), None)
    if found is None:
        return None
    return {"run_id": found.info.run_id, "name": found.info.run_name, metric: found.data.metrics[metric]}


def _served(serving: Serving, kubeconfig: str | None) -> str:
    with sdk():
        manifest = importlib.import_module("fettle.deploy.kserve.manifest").manifest(serving)
        cluster = importlib.import_module("fettle.deploy.kserve.cluster").Cluster(kubeconfig)
    cluster.make_namespace(serving.namespace)
    done: str = cluster.apply(manifest)
    return done
