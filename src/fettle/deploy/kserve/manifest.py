"""An InferenceService made of the SDK's own types, and read back by them."""

import json
from importlib.metadata import version
from typing import Any, NamedTuple

import kubernetes.client
from kserve import (
    V1beta1InferenceService,
    V1beta1InferenceServiceSpec,
    V1beta1ModelFormat,
    V1beta1ModelSpec,
    V1beta1PredictorSpec,
    models,
)
from kubernetes.client import (
    ApiClient,
    V1Container,
    V1ContainerPort,
    V1EnvVar,
    V1HTTPGetAction,
    V1ObjectMeta,
    V1Probe,
    V1ResourceRequirements,
    V1SecurityContext,
)

from fettle.deploy.schema import check_schema
from fettle.deploy.serving import API_VERSION, KIND, Serving
from fettle.errors import ConfigError

MOUNTED = "/mnt/models"
"""Where KServe puts the model that ``STORAGE_URI`` names."""
PORT = 8080
LONGEST_START = 180
"""Looks at a predictor, ten seconds apart, that is not ready yet."""


class Answer(NamedTuple):
    """What the client reads: the body of an answer of the API."""

    data: str


def manifest(serving: Serving) -> dict[str, Any]:
    """What is sent to the cluster.

    Raises:
        ConfigError: the installed SDK writes something else than an InferenceService that a cluster takes.
    """
    predictor = V1beta1PredictorSpec(
        min_replicas=serving.replicas, max_replicas=serving.replicas, canary_traffic_percent=serving.canary
    )
    if serving.image is None:
        predictor.model = _hugging_face(serving)
    else:
        predictor.containers = [_container(serving, serving.image)]
    labels = {"app.kubernetes.io/managed-by": "fettle"}
    service = V1beta1InferenceService(
        api_version=API_VERSION,
        kind=KIND,
        metadata=V1ObjectMeta(name=serving.name, namespace=serving.namespace, labels=labels),
        spec=V1beta1InferenceServiceSpec(predictor=predictor),
    )
    made: dict[str, Any] = ApiClient().sanitize_for_serialization(service)
    check_written(made)
    made["spec"]["predictor"].get("model", {}).pop("name", None)  # an empty one, which is no name
    check_schema(made, KIND)
    check_round_trip(made, "V1beta1InferenceService")
    return made


def check_round_trip(written: dict[str, Any], kind: str) -> None:
    """Refuse what a type of the SDK does not give back as it was: it has fields that the type does not know.

    Raises:
        ConfigError: something is lost on the way.
    """
    for name, known in vars(models).items():  # the client looks for types among its own
        if isinstance(known, type) and not hasattr(kubernetes.client.models, name):
            setattr(kubernetes.client.models, name, known)
    client = ApiClient()
    read = client.deserialize(Answer(json.dumps(written)), kind)
    lost = sorted(_paths(written) - _paths(client.sanitize_for_serialization(read)))
    if lost:
        raise ConfigError(f"{kind} has no field {', '.join(lost)}: mend the manifest")


def check_written(made: dict[str, Any]) -> None:
    """Refuse what the SDK writes beside a client of Kubernetes that it was not made for, which it does not notice.

    Raises:
        ConfigError: it has other names for its fields than the API.
    """
    if made.get("apiVersion") != API_VERSION:
        found = f"kubernetes {version('kubernetes')} and kserve {version('kserve')}"
        raise ConfigError(f"{found} write no manifest together: install what constraints-deploy.txt names")


def _hugging_face(serving: Serving) -> V1beta1ModelSpec:
    return V1beta1ModelSpec(
        model_format=V1beta1ModelFormat(name="huggingface"),
        storage_uri=serving.model_uri,
        args=[f"--model_name={serving.name}"],
        resources=_resources(serving),
    )


def _container(serving: Serving, image: str) -> V1Container:
    ready = V1HTTPGetAction(path=f"/v2/models/{serving.name}/ready", port=PORT)
    return V1Container(
        name="kserve-container",
        image=image,
        args=["--name", serving.name, "--model", MOUNTED, "--port", str(PORT)],
        env=[V1EnvVar(name="STORAGE_URI", value=serving.model_uri)],
        ports=[V1ContainerPort(container_port=PORT, name="http1", protocol="TCP")],
        readiness_probe=V1Probe(http_get=ready, period_seconds=10, failure_threshold=LONGEST_START),
        resources=_resources(serving),
        security_context=V1SecurityContext(allow_privilege_escalation=False, run_as_non_root=True),
    )


def _resources(serving: Serving) -> V1ResourceRequirements:
    amounts = {"cpu": serving.cpus, "memory": serving.memory}
    if serving.gpus:
        amounts["nvidia.com/gpu"] = str(serving.gpus)
    return V1ResourceRequirements(limits=amounts, requests=dict(amounts))


def _paths(tree: Any, at: str = "") -> set[str]:
    """Every place in a tree that holds a value."""
    if isinstance(tree, dict) and tree:
        return {path for name, each in tree.items() for path in _paths(each, f"{at}.{name}" if at else str(name))}
    if isinstance(tree, list) and tree:
        return {path for place, each in enumerate(tree) for path in _paths(each, f"{at}[{place}]")}
    return {f"{at}={tree}"}
