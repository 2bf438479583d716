"""What a cluster is asked for: InferenceServices made, changed, looked at, rolled back, deleted, and runs begun."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from kubernetes import config
from kubernetes.client import ApiClient, ApiException, Configuration, CoreV1Api, CustomObjectsApi
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from fettle.deploy import rayjob, serving
from fettle.errors import (
    ConfigError,
    EngineError,
    FettleError,
    ForbiddenError,
    NotFoundError,
    StateError,
    UnreachableError,
)

GROUP, VERSION = serving.API_VERSION.split("/")
PLURAL = "inferenceservices"
RUNS = dict(zip(("group", "version"), rayjob.API_VERSION.split("/"), strict=True), plural="rayjobs")
CONNECTING_S, ANSWERING_S = 5, 30
OURS = ("canaryTrafficPercent", "containers", "maxReplicas", "minReplicas", "model")
"""Fields of a predictor that are taken back where they are no longer asked for; others are somebody else's."""

KINDS: dict[int, type[FettleError]] = {
    400: ConfigError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    409: StateError,
    422: ConfigError,
}
"""What the API's refusals mean; others are the cluster's own trouble."""


class Standing(NamedTuple):
    """How a service is doing, in the cluster's words."""

    ready: bool
    why: str
    """What it waits for; empty once it is ready."""
    url: str
    traffic: tuple[tuple[str, int], ...]
    """Percent of the requests that each revision gets."""
    serving: str
    """The revision that had all requests last."""
    newest: str
    before: str
    """The revision that had all requests before that."""


class Cluster:
    """The API of one cluster.

    Raises:
        ConfigError: a kubeconfig is named, and cannot be used.
        UnreachableError: there is none, and this is no pod of a cluster.
    """

    def __init__(self, kubeconfig: str | None = None, context: str | None = None) -> None:
        settings = _settings(kubeconfig, context)
        settings.retries = False
        client = ApiClient(settings)
        self._address: str = settings.host
        self._services = CustomObjectsApi(client)
        self._core = CoreV1Api(client)
        self._timely = {"_request_timeout": (CONNECTING_S, ANSWERING_S)}

    def apply(self, manifest: dict[str, Any]) -> str:
        """Make the service, or change the one of that name to this; returns which."""
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        with self._asking():
            try:
                there = self._services.get_namespaced_custom_object(
                    GROUP, VERSION, namespace, PLURAL, name, **self._timely
                )
            except ApiException as error:
                if error.status != 404:
                    raise
                self._services.create_namespaced_custom_object(
                    GROUP, VERSION, namespace, PLURAL, manifest, **self._timely
                )
                return "created"
            self._patch(name, namespace, _changes(there, manifest))
            return "changed"

    def standing(self, name: str, namespace: str) -> Standing:
        """How a service is doing.

        Raises:
            NotFoundError: there is none of that name.
        """
        with self._asking():
            return _standing(
                self._services.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name, **self._timely)
            )

    def roll_back(self, name: str, namespace: str) -> str:
        """Give all requests to the revision that had them before; returns its name.

        Raises:
            StateError: there is no such revision.
        """
        now = self.standing(name, namespace)
        before = now.serving if now.serving and now.serving != now.newest else now.before
        if not before:
            raise StateError(f"{name} has no earlier revision to go back to: deploy the model that it should serve")
        with self._asking():
            self._patch(name, namespace, {"spec": {"predictor": {"canaryTrafficPercent": 0}}})
        return before

    def delete(self, name: str, namespace: str) -> None:
        """Take a service away."""
        with self._asking():
            self._services.delete_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name, **self._timely)

    def begin(self, job: dict[str, Any], recipe: dict[str, Any]) -> None:
        """Make a RayJob, and the ConfigMap of its recipe, which goes when it goes.

        Raises:
            StateError: there is one of that name, and so one run of that id, already.
        """
        name, place = job["metadata"]["name"], {"namespace": job["metadata"]["namespace"], **RUNS}
        with self._asking("RayJob: install KubeRay"):
            try:
                made = self._services.create_namespaced_custom_object(**place, body=job, **self._timely)
            except ApiException as error:
                if error.status != 409:
                    raise
                raise StateError(
                    f"there is a run {name} in {place['namespace']} already, and each is begun once: choose another "
                    "--name"
                ) from error
            owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": name, "uid": made["metadata"]["uid"]}
            body = {**recipe, "metadata": {**recipe["metadata"], "ownerReferences": [owner]}}
            try:
                self._core.create_namespaced_config_map(place["namespace"], body, **self._timely)
            except (ApiException, HTTPError):  # it would wait for its recipe for ever
                self._services.delete_namespaced_custom_object(**place, name=name, **self._timely)
                raise

    def make_namespace(self, name: str) -> bool:
        """Whether there was none, and it was made."""
        with self._asking():
            try:
                self._core.read_namespace(name, **self._timely)
            except ApiException as error:
                if error.status != 404:
                    raise
                self._core.create_namespace({"metadata": {"name": name}}, **self._timely)
                return True
            return False

    def _patch(self, name: str, namespace: str, changes: dict[str, Any]) -> None:
        self._services.patch_namespaced_custom_object(
            GROUP,
            VERSION,
            namespace,
            PLURAL,
            name,
            changes,
            _content_type="application/merge-patch+json",
            **self._timely,
        )

    @contextmanager
    def _asking(self, of: str = "InferenceService: install KServe") -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            raise KINDS.get(error.status, EngineError)(_refusal(self._address, error, of)) from error
        except HTTPError as error:
            raise UnreachableError(f"the cluster at {self._address} cannot be reached: {error}") from error


def _settings(kubeconfig: str | None, context: str | None) -> Configuration:
    settings = Configuration()
    try:
        config.load_kube_config(kubeconfig, context, client_configuration=settings)
    except (ConfigException, OSError, ValueError) as error:
        if kubeconfig is not None or context is not None:
            raise ConfigError(f"the kubeconfig cannot be used: {error}") from error
        try:
            config.load_incluster_config(client_configuration=settings)
        except ConfigException:
            raise UnreachableError(
                "there is no cluster to ask, for no kubeconfig is found here: name one with --kubeconfig "
                "(fettle deploy kserve --dry-run shows a manifest without a cluster)"
            ) from error
    return settings


def _refusal(address: str, error: ApiException, of: str) -> str:
    try:
        said = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        if error.status == 404:
            return f"the cluster at {address} knows no {of} there"
        said = f"{error.status} {error.reason}"
    return f"the cluster at {address} refused: {said}"


def _changes(there: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What makes the one the other, as a merge patch."""
    predictor = wanted["spec"]["predictor"]
    before = {name: value for name, value in there.get("spec", {}).get("predictor", {}).items() if name in OURS}
    labels = {"labels": wanted["metadata"]["labels"]}
    return {"metadata": labels, "spec": {"predictor": {**_without(before, predictor), **_laid(before, predictor)}}}


def _without(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(before.keys() - after.keys())


def _laid(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    laid = {}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            value = {**_without(old, value), **_laid(old, value)}
        laid[name] = value
    return laid


def _standing(service: dict[str, Any]) -> Standing:
    status = service.get("status", {})
    predictor = status.get("components", {}).get("predictor", {})
    traffic = tuple(
        (str(part.get("revisionName") or predictor.get("latestReadyRevision", "")), int(part.get("percent", 0)))
        for part in predictor.get("traffic", ())
    )
    why = _waits_for(service)
    return Standing(
        ready=not why,
        why=why,
        url=str(status.get("url", "")),
        traffic=traffic,
        serving=str(predictor.get("latestRolledoutRevision", "")),
        newest=str(predictor.get("latestCreatedRevision") or predictor.get("latestReadyRevision", "")),
        before=str(predictor.get("previousRolledoutRevision", "")),
    )


def _waits_for(service: dict[str, Any]) -> str:
    """Why it is not ready; empty if it is."""
    status = service.get("status", {})
    if status.get("observedGeneration", 0) < service["metadata"].get("generation", 0):
        return "the cluster has not looked at the last change yet"
    conditions = {each["type"]: each for each in status.get("conditions", ())}
    if conditions.get("Ready", {}).get("status") == "True":
        return ""
    bad = [each for each in conditions.values() if each.get("status") != "True"]
    said = [f"{each['type']}: {each.get('message') or each.get('reason') or each.get('status')}" for each in bad]
    return "; ".join(said) or "the cluster says nothing of it yet"
