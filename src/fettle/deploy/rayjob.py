"""A run as a RayJob of KubeRay's: a Ray cluster of its own, and the recipe that is trained on it."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, field_validator

from fettle.config.base import Frozen
from fettle.deploy.begun import entrypoint
from fettle.deploy.schema import check_schema
from fettle.deploy.serving import Label, Quantity

API_VERSION, KIND = "ray.io/v1", "RayJob"

LONGEST_NAME = 47
"""Characters of a RayJob's name, which KubeRay makes longer ones of."""
RUNS, RECIPE = "/runs", "/recipe"
USER = 10001
"""Of the images of ``deploy/Dockerfile``."""
QUEUE = "kueue.x-k8s.io/queue-name"
GROUP = "ray.io/node-group"
"""Ray's label of the pods of a role."""
AGENT: Mapping[str, Any] = MappingProxyType({"path": "/api/local_raylet_healthz", "port": 52365})
"""What says of a pod whether its part of Ray is well. KubeRay would ask with wget, which a small image has not."""
LONGEST_START = 60
"""Looks at a pod, five seconds apart, that does not answer yet."""


class Head(Frozen):
    """The pod that keeps the cluster's books. It computes nothing, so that work cannot end the cluster."""

    cpus: Annotated[int, Field(ge=1)] = 2
    memory: Quantity = "8Gi"


class Workers(Frozen):
    """Pods of one role. Ray knows them by the label ``ray.io/node-group``, which is the role's name."""

    count: Annotated[int, Field(ge=0)] = 1
    """Where it is 0 there is no such role."""
    cpus: Annotated[int, Field(ge=1)] = 4
    """Of each pod."""
    memory: Quantity = "16Gi"
    gpus: Annotated[int, Field(ge=0)] = 0
    shared_memory: Quantity = "4Gi"
    """Part of the memory that Ray passes objects through."""


class Submission(Frozen):
    """One run on a Ray cluster of its own."""

    name: Label
    """Of the RayJob, and the submission id of the run: no two runs have one."""
    image: Annotated[str, Field(pattern=r"^\S+$")]
    """With Fettle and Ray in it, as ``deploy/Dockerfile --target cluster`` makes it."""
    claim: Label
    """The volume claim for runs, which all pods write to: its access mode is ReadWriteMany."""
    namespace: Label = "default"
    head: Head = Head()
    trainers: Workers = Workers()
    samplers: Workers = Workers(count=0)
    environments: Workers = Workers(count=0)
    queue: Label | None = None
    """A LocalQueue of Kueue's, which the run waits in."""
    retries: Annotated[int, Field(ge=0)] = 0
    """How often a failed run gets a new cluster, on which it goes on."""
    keep_s: Annotated[int, Field(ge=0)] = 600
    """Seconds that a cluster stays after its run."""

    @field_validator("name")
    @classmethod
    def _is_short(cls, given: str) -> str:
        if len(given) > LONGEST_NAME:
            raise ValueError(f"it has {len(given)} characters, and KubeRay takes {LONGEST_NAME} at most")
        return given

    @field_validator("trainers")
    @classmethod
    def _somebody_trains(cls, given: Workers) -> Workers:
        if not given.count:
            raise ValueError("count is 0, and nobody would train: use 1 or more")
        return given


def engine_settings(submission: Submission, engines: Iterable[str]) -> list[str]:
    """What is laid over a recipe's engines, named as ``stages.0.engine``: the cluster, a rank a GPU or pod."""
    ranks = submission.trainers.count * max(1, submission.trainers.gpus)
    settings = ("address=auto", f"workers={ranks}", f'labels={{"{GROUP}":"trainers"}}')
    return [f"{engine}.{setting}" for engine in engines for setting in settings]


def manifests(
    submission: Submission, recipe: str, settings: Iterable[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The RayJob, and the ConfigMap in which it finds its recipe. ``settings`` are laid over that, as ``a.b=value``.

    Raises:
        ConfigError: it is no RayJob that a cluster takes.
    """
    begin = ["fettle", "train", f"{RECIPE}/recipe.yaml", *settings, "--engine", "ray"]
    labels = {"app.kubernetes.io/managed-by": "fettle"}
    metadata = {"name": submission.name, "namespace": submission.namespace, "labels": labels}
    job = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {**metadata, "labels": labels | ({QUEUE: submission.queue} if submission.queue else {})},
        "spec": {
            "entrypoint": entrypoint(f"{RUNS}/{submission.name}", begin),  # a retry begins on a new cluster
            "entrypointNumCpus": 1,  # the loop runs on a worker, for the head has no CPU to give
            "jobId": submission.name,
            "submissionMode": "HTTPMode",
            "backoffLimit": submission.retries,
            **({"suspend": True} if submission.queue else {}),  # Kueue lifts it, once there is room for all pods
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": submission.keep_s,
            "rayClusterSpec": {
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
                    "template": _pod(submission, "head", Workers(**submission.head.model_dump())),
                },
                "workerGroupSpecs": list(_groups(submission)),
            },
        },
    }
    check_schema(job, KIND)
    data = {"recipe.yaml": recipe}
    return job, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _groups(submission: Submission) -> Iterator[dict[str, Any]]:
    roles = {"trainers": submission.trainers, "samplers": submission.samplers, "environments": submission.environments}
    for role, workers in roles.items():
        if workers.count:
            counts = dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), workers.count)
            yield {"groupName": role, **counts, "rayStartParams": {}, "template": _pod(submission, role, workers)}


def _pod(submission: Submission, role: str, workers: Workers) -> dict[str, Any]:
    amounts = {"cpu": str(workers.cpus), "memory": workers.memory}
    if workers.gpus:
        amounts["nvidia.com/gpu"] = str(workers.gpus)
    container = {
        "name": "ray-head" if role == "head" else "ray-worker",
        "image": submission.image,
        "env": [{"name": "RAY_NODE_TYPE_NAME", "value": role}],  # what Ray makes the label of
        "resources": {"limits": amounts, "requests": dict(amounts)},
        "startupProbe": _look(failures=LONGEST_START),
        "readinessProbe": _look(failures=10),
        "livenessProbe": _look(failures=24),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "recipe", "mountPath": RECIPE, "readOnly": True},
            {"name": "runs", "mountPath": RUNS},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    return {
        "metadata": {"labels": {"app.kubernetes.io/name": "fettle", "app.kubernetes.io/component": role}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), USER),
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {"name": "recipe", "configMap": {"name": submission.name}},
                {"name": "runs", "persistentVolumeClaim": {"claimName": submission.claim}},
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": workers.shared_memory}},
            ],
        },
    }


def _look(failures: int) -> dict[str, Any]:
    return {"httpGet": dict(AGENT), "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": failures}
