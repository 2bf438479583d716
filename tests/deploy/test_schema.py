"""Whatever is no part of an InferenceService or a RayJob, or of another type, is found without a cluster."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from fettle.deploy.schema import check_schema
from fettle.errors import ConfigError

MANIFEST: dict[str, Any] = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "sums", "namespace": "default", "labels": {}},
    "spec": {
        "predictor": {
            "minReplicas": 1,
            "maxReplicas": 1,
            "model": {
                "modelFormat": {"name": "huggingface"},
                "storageUri": "s3://models/sums",
                "args": [],
                "resources": {"limits": {"cpu": 2, "memory": "4Gi"}, "requests": {}},
            },
        }
    },
}


def test_what_is_right_passes():
    check_schema(MANIFEST, "InferenceService")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda tree: tree.update(apiVersion="v1"),
            "of v1 InferenceService: a cluster takes serving.kserve.io/v1beta1",
        ),
        (lambda tree: tree.pop("spec"), "it has no spec"),
        (lambda tree: tree["spec"].pop("predictor"), "spec has no predictor"),
        (lambda tree: tree["metadata"].update(label={}), "no field metadata.label; did you mean labels?"),
        (
            lambda tree: tree["metadata"]["labels"].update(a=1),
            "metadata.labels.a is 1, and of another type than string",
        ),
        (
            lambda tree: predictor(tree).update(min_replicas=1),
            "there is no field spec.predictor.min_replicas; did you mean minReplicas?",
        ),
        (lambda tree: predictor(tree).update(minReplicas="1"), "minReplicas is '1', and of another type than integer"),
        (lambda tree: predictor(tree).update(minReplicas=True), "minReplicas is True, and of another type"),
        (lambda tree: predictor(tree).update(maxReplicas=2**80), "which is out of its range"),
        (lambda tree: predictor(tree).update(scaleMetric="gpu"), "'gpu', and none of cpu, memory, concurrency, rps"),
        (lambda tree: predictor(tree).update(hostNetwork=1), "hostNetwork is 1, and of another type than boolean"),
        (lambda tree: predictor(tree)["model"].update(args="a"), "model.args is 'a', and of another type than array"),
        (lambda tree: predictor(tree)["model"].update(args=[1]), "model.args[0] is 1, and of another type than string"),
        (lambda tree: predictor(tree).update(containers=[{}]), "spec.predictor.containers[0] has no name"),
        (lambda tree: limits(tree).update(memory="4 GB"), "limits.memory is '4 GB', which is not written as it should"),
        (lambda tree: limits(tree).update(cpu=True), "limits.cpu is True, and neither a number nor a text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_named(change: Callable[[dict], object], said: str):
    tree = deepcopy(MANIFEST)
    change(tree)
    with pytest.raises(ConfigError) as error:
        check_schema(tree, "InferenceService")
    assert said in error.value.message


def predictor(tree: dict[str, Any]) -> dict[str, Any]:
    return tree["spec"]["predictor"]


def limits(tree: dict[str, Any]) -> dict[str, Any]:
    return predictor(tree)["model"]["resources"]["limits"]
