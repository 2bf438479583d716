"""A run as a RayJob: what is asked of a cluster, by its own schema, and what its shell does there."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fettle.config.load import load
from fettle.deploy.rayjob import Submission, engine_settings, manifests
from fettle.deploy.schema import check_schema
from tests.commands import typed

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "configs" / "arithmetic-grpo.yaml"
ASKED = (
    "deploy",
    "rayjob",
    str(RECIPE),
    "--name",
    "sums",
    "--image",
    "registry/fettle:1",
    "--claim",
    "runs",
    "--dry-run",
)


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    submission = Submission(
        name="sums",
        image="registry/fettle:1",
        claim="runs",
        trainers={"count": 2, "gpus": 8, "shared_memory": "8Gi"},
        samplers={"count": 4, "gpus": 1},
        queue="team",
        retries=2,
    )
    return manifests(submission, "type: sft\n", engine_settings(submission, ["engine"]))[0]


def groups(job) -> dict[str, dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return {"head": cluster["headGroupSpec"], **{each["groupName"]: each for each in cluster["workerGroupSpecs"]}}


def test_the_run_is_one_of_its_id_and_its_cluster_goes_when_it_ends(job):
    spec = job["spec"]
    assert (spec["jobId"], spec["submissionMode"], spec["backoffLimit"]) == ("sums", "HTTPMode", 2)
    assert (spec["shutdownAfterJobFinishes"], spec["ttlSecondsAfterFinished"]) == (True, 600)
    assert (job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], spec["suspend"]) == ("team", True)


def test_each_role_has_a_group_and_the_head_no_work(job):
    found = groups(job)
    assert found.keys() == {"head", "trainers", "samplers"}  # nobody asked for environments
    assert found["head"]["rayStartParams"]["num-cpus"] == "0"
    assert job["spec"]["entrypointNumCpus"] == 1
    assert [found["trainers"][name] for name in ("replicas", "minReplicas", "maxReplicas")] == [2, 2, 2]
    for role, gpus in {"head": None, "trainers": "8", "samplers": "1"}.items():
        pod = found[role]["template"]["spec"]
        [container] = pod["containers"]
        assert container["resources"]["limits"].get("nvidia.com/gpu") == gpus
        assert container["env"] == [{"name": "RAY_NODE_TYPE_NAME", "value": role}]
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    [shared] = [each for each in found["trainers"]["template"]["spec"]["volumes"] if each["name"] == "shm"]
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}


def test_a_retry_goes_on_with_the_run_that_is_there(job, tmp_path):
    runs = tmp_path / "runs" / "sums"
    command = job["spec"]["entrypoint"].replace("/runs/sums", str(runs))
    (tmp_path / "fettle").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "fettle").chmod(0o755)
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}

    def fettle() -> list[str]:
        return subprocess.check_output(command, shell=True, env=env, text=True).splitlines()

    begin = ["train", "/recipe/recipe.yaml", "engine.address=auto", "engine.workers=16"]  # a rank a GPU
    begin.append('engine.labels={"ray.io/node-group":"trainers"}')
    assert fettle() == [*begin, "--engine", "ray", "--runs", str(runs)]
    (runs / "a-1").mkdir(parents=True)
    assert fettle()[1] == "/recipe/recipe.yaml"  # a folder without a recipe is no run
    (runs / "a-1" / "config.yaml").touch()
    assert fettle() == ["train", "--resume", str(runs / "a-1")]


def test_a_dry_run_prints_the_recipe_and_the_run(tmp_path):
    code, out, _ = typed(*ASKED, "trainers.gpus=8")
    assert (code, out.splitlines()[0]) == (0, "# A dry run: no cluster was asked.")
    data, job = yaml.safe_load_all(out)
    check_schema(job, "RayJob")
    words = shlex.split(job["spec"]["entrypoint"])
    assert [word for word in words if word.startswith("stages.")] == [
        f"stages.{stage}.engine.{setting}"
        for stage in (0, 1)
        for setting in ("address=auto", "workers=8", 'labels={"ray.io/node-group":"trainers"}')
    ]
    (tmp_path / "recipe.yaml").write_text(data["data"]["recipe.yaml"])
    assert load(tmp_path / "recipe.yaml") == load(RECIPE)
    for group in groups(job).values():
        assert group["template"]["spec"]["volumes"][0]["configMap"]["name"] == data["metadata"]["name"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("traners.count=2",), "unknown key 'traners'; did you mean 'trainers'?"),
        (("trainers.count=0",), "nobody would train"),
        (("trainers.memory=4 GB",), "4 GB is no amount in a cluster"),
        (("--name", "a" * 48), "it has 48 characters, and KubeRay takes 47 at most"),
        (("--claim", "Runs"), "Runs is no name in a cluster"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_cannot_be_asked_is_one_sentence(more, said):
    code, _, err = typed(*ASKED, *more)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
