"""Whatever is no part of an InferenceService, or of another type, is found without a cluster and without the SDK."""

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
                "resources": {"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {}},
            },
        }
    },
}


def test_what_is_right_passes():
    check_schema(MANIFEST)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: tree.update(apiversion="v1"), "apiversion: extra"),
        (lambda tree: tree.pop("apiVersion"), "apiVersion: field required"),
        (lambda tree: tree["metadata"].update(name="Sums"), "metadata.name: sums is no name"),
        (lambda tree: predictor(tree).update(min_replicas=1), "spec.predictor.min_replicas: extra"),
        (
            lambda tree: predictor(tree).update(minReplicas="1"),
            "spec.predictor.minReplicas: input should be a valid int",
        ),
        (lambda tree: predictor(tree).update(canaryTrafficPercent=101), "canaryTrafficPercent: input should be less"),
        (lambda tree: predictor(tree).pop("model"), "spec.predictor: a predictor has either a model"),
        (lambda tree: limits(tree).update(memory="4 GB"), "limits.memory: 4 GB is no amount"),
        (lambda tree: limits(tree).update(gpu="1"), "limits.gpu.[key]: input should be 'cpu'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_named(change: Callable[[dict], object], said: str):
    tree = deepcopy(MANIFEST)
    change(tree)
    with pytest.raises(ConfigError) as error:
        check_schema(tree)
    assert said in error.value.message


def predictor(tree: dict[str, Any]) -> dict[str, Any]:
    return tree["spec"]["predictor"]


def limits(tree: dict[str, Any]) -> dict[str, Any]:
    return predictor(tree)["model"]["resources"]["limits"]
