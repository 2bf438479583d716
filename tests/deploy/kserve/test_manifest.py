"""The manifest is what KServe reads, nothing more and nothing less: by its SDK, and by the schema of its clusters."""

import json
import subprocess
import sys

import pytest
import yaml

from fettle.deploy.schema import check_schema
from fettle.errors import ConfigError

from .apart import environment

MANIFEST = "fettle.deploy.kserve.manifest"
DRY = ("deploy", "kserve", "--name", "sums", "--dry-run", "--model-uri")


def shown(apart, *options: str) -> dict:
    done = apart.fettle(*DRY, *options)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("# A dry run: no cluster was asked.\n")
    return yaml.safe_load(done.out)


def test_a_dry_run_prints_what_would_be_sent(apart):
    amounts = {"cpu": "2", "memory": "16Gi", "nvidia.com/gpu": "1"}
    assert shown(apart, "s3://models/sums", "--canary", "10", "--gpus", "1", "--memory", "16Gi", "--replicas", "3") == {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "sums",
            "namespace": "default",
            "labels": {"app.kubernetes.io/managed-by": "fettle"},
        },
        "spec": {
            "predictor": {
                "canaryTrafficPercent": 10,
                "minReplicas": 3,
                "maxReplicas": 3,
                "model": {
                    "modelFormat": {"name": "huggingface"},
                    "storageUri": "s3://models/sums",
                    "args": ["--model_name=sums"],
                    "resources": {"limits": amounts, "requests": amounts},
                },
            }
        },
    }


@pytest.fixture(scope="module")
def own(apart) -> dict:
    """With Fettle's predictor."""
    return shown(apart, "pvc://models/sums", "--image", "registry/fettle:1")


def test_the_container_is_the_predictor_that_is_tested_here(own):
    [container] = own["spec"]["predictor"]["containers"]
    assert container["args"] == ["--name", "sums", "--model", "/mnt/models", "--port", "8080"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/models/sums/ready", "port": 8080}
    assert container["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize(
    "change",
    [
        lambda predictor: predictor.update(storageURI="s3://models/sums"),
        lambda predictor: predictor.update(minReplica=1),
        lambda predictor: predictor["containers"][0].update(volumeMount=[]),
        lambda predictor: predictor["containers"][0]["readinessProbe"].update(httpget={"path": "/"}),
    ],
    ids=["storageURI", "minReplica", "volumeMount", "httpget"],
)
def test_a_field_that_is_not_there_is_found_by_both(apart, own, change):
    written = json.loads(json.dumps(own))
    change(written["spec"]["predictor"])
    assert "has no field spec.predictor" in str(
        apart.call(f"{MANIFEST}:check_round_trip", written, "V1beta1InferenceService")
    )
    with pytest.raises(ConfigError, match=r"there is no field spec\.predictor"):
        check_schema(written, "InferenceService")


def test_what_was_printed_passes_both(apart, own):
    assert apart.call(f"{MANIFEST}:check_round_trip", own, "V1beta1InferenceService") is None
    check_schema(own, "InferenceService")


def test_help_waits_for_no_sdk(apart):
    code = """
import sys
from typer.testing import CliRunner
import fettle.cli
done = CliRunner().invoke(fettle.cli.app, ["deploy", "kserve", "--help"])
print(done.exit_code, sorted({"kserve", "kubernetes", "torch"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0 []\n", "")


def test_a_client_that_writes_other_names_is_noticed(apart):
    said = apart.call(f"{MANIFEST}:check_written", {"api_version": "serving.kserve.io/v1beta1", "kind": None})
    assert said == (
        "kubernetes 36.0.3 and kserve 0.21.0 write no manifest together: install what constraints-deploy.txt names"
    )
