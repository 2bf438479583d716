"""The images and the Job of ``deploy/``: pinned, not run by root, and asking only for what is there."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import yaml

from fettle.cli import app
from fettle.config.load import load

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
JOB = ROOT / "deploy" / "train-job.yaml"
PINNED = re.compile(r"\S+:\d+\.\d+\.\d+[-\w.]*(@sha256:[0-9a-f]{64})?")
KNOWN = {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "EXPOSE", "ENTRYPOINT"}


class Step(NamedTuple):
    stage: str
    instruction: str
    rest: str


def steps(text: str) -> list[Step]:
    """The instructions of a Dockerfile, each on one line, with the stage that it is in."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found, stage = [], ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            stage = rest.partition(" AS ")[2]
        found.append(Step(stage, instruction, " ".join(rest.split())))
    return found


def faults(text: str) -> list[str]:
    """What is wrong with a Dockerfile."""
    found = steps(text)
    default = {name: value for _, key, rest in found if key == "ARG" for name, _, value in [rest.partition("=")]}
    stages = {each.stage for each in found if each.stage}
    said = [f"{step.instruction} is not known here" for step in found if step.instruction not in KNOWN]
    for step in found:
        image = re.sub(r"\$\{(\w+)\}", lambda match: default[match[1]], step.rest.partition(" AS ")[0])
        if step.instruction == "FROM" and image not in stages and not PINNED.fullmatch(image):
            said.append(f"{image} is not pinned")
        if step.instruction == "RUN":
            said += [
                f"not constrained: {call}"
                for call in step.rest.split("&&")
                if "pip install" in call and " -c " not in call
            ]
        if step.instruction == "COPY":
            said += [f"nothing to copy: {name}" for name in step.rest.split()[:-1] if not (ROOT / name).exists()]
    for stage in sorted({each.stage for each in found if each.instruction in ("ENTRYPOINT", "USER")}):
        own = [each for each in found if each.stage == stage]
        users = [each.rest for each in own if each.instruction == "USER"]
        if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
            said.append(f"{stage} is run by root, or by a name")
    return said


def test_the_images_have_no_fault():
    assert faults(DOCKERFILE.read_text()) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("3.12.12-slim-bookworm", "latest"), "python:latest is not pinned"),
        (("pip install -c constraints.txt --upgrade pip", "pip install --upgrade pip"), "not constrained: pip install"),
        (("COPY src src", "COPY sources src"), "nothing to copy: sources"),
        (('constraints.txt "/opt/fettle[cluster]"\nUSER 10001:10001', "constraints.txt"), "cluster is run by root"),
        (("USER 10001:10001\n", ""), "predictor is run by root, or by a name"),
        (("USER 10001:10001", "USER fettle"), "training is run by root, or by a name"),
        (("COPY src", "ADD src"), "ADD is not known here"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_is_found(change, fault):
    assert any(each.startswith(fault) for each in faults(DOCKERFILE.read_text().replace(*change)))


def test_each_image_runs_a_command_that_there_is():
    entries = [step.rest for step in steps(DOCKERFILE.read_text()) if step.instruction == "ENTRYPOINT"]
    assert entries == ['["fettle"]', '["fettle", "deploy", "predictor"]']
    predictor: Any = typer.main.get_command(app).commands["deploy"].commands["predictor"]
    assert {"--name", "--model", "--port"} <= {name for option in predictor.params for name in option.opts}


def test_what_is_copied_is_not_ignored():
    kept = [
        line[1:] for line in (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    copied = {name for s in steps(DOCKERFILE.read_text()) if s.instruction == "COPY" for name in s.rest.split()[:-1]}
    assert copied == set(kept)


@pytest.fixture
def objects() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(JOB.read_text())}


def test_the_job_is_held_down(objects):
    assert objects.keys() == {"ConfigMap", "PersistentVolumeClaim", "Job"}
    pod = objects["Job"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert PINNED.fullmatch(container["image"])
    assert pod["securityContext"]["runAsNonRoot"]
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" in DOCKERFILE.read_text()
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert pod["volumes"][0]["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    assert (
        pod["volumes"][1]["persistentVolumeClaim"]["claimName"] == objects["PersistentVolumeClaim"]["metadata"]["name"]
    )


def test_its_recipe_is_one(objects, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(objects["ConfigMap"]["data"]["recipe.yaml"])
    assert [stage.name for stage in load(path).stages] == ["warm-up", "grpo"]


@pytest.mark.skipif(os.name == "nt", reason="the container has a shell")
def test_a_pod_that_takes_the_place_of_another_goes_on_with_its_run(objects, tmp_path):
    [container] = objects["Job"]["spec"]["template"]["spec"]["containers"]
    (tmp_path / "fettle").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "fettle").chmod(0o755)
    runs = tmp_path / "runs"
    runs.mkdir()
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    env = {each["name"]: each["value"] for each in container["env"]} | {"RUNS": str(runs), "PATH": path}

    def typed() -> list[str]:
        return shlex.split(subprocess.check_output(container["command"], env=env, text=True))

    assert typed() == ["train", "/recipe/recipe.yaml", "--runs", str(runs)]
    (runs / "arithmetic-1").mkdir()
    (runs / "arithmetic-1" / "config.yaml").touch()
    assert typed() == ["train", "--resume", str(runs / "arithmetic-1")]
