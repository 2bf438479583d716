"""The Job that trains has no field that Kubernetes' own types do not know."""

from pathlib import Path

import pytest
import yaml

ROUND_TRIP = "fettle.deploy.kserve.manifest:check_round_trip"
KINDS = ("ConfigMap", "PersistentVolumeClaim", "Job")


@pytest.fixture
def objects() -> dict[str, dict]:
    written = (Path(__file__).parents[3] / "deploy" / "train-job.yaml").read_text()
    return {each["kind"]: each for each in yaml.safe_load_all(written)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_known(apart, objects, kind):
    assert apart.call(ROUND_TRIP, objects[kind], f"V1{kind}") is None


def test_a_field_that_is_not_is_found(apart, objects):
    pod = objects["Job"]["spec"]["template"]["spec"]
    pod["containers"][0]["securityContext"]["readonlyRootFilesystem"] = True
    assert "readonlyRootFilesystem" in apart.call(ROUND_TRIP, objects["Job"], "V1Job")
