"""What ``docs/deploy.md`` shows is so: its commands are typed in their order, and answer as it says."""

import re
import shlex
from pathlib import Path

import yaml

from tests.commands import typed

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "deploy.md").read_text()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SEEN = {"url": "http://sums.default.example.org", "conditions": [{"type": "Ready", "status": "True"}]}
REVISIONS = {"latestRolledoutRevision": "r2", "latestReadyRevision": "r2", "previousRolledoutRevision": "r1"}


def commands(beginning: str) -> list[list[str]]:
    lines = [line for language, block in FENCE.findall(PAGE) if language == "bash" for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(beginning)]


def test_the_manifest_is_the_one_shown(apart):
    shown, _ = (block for language, block in FENCE.findall(PAGE) if language == "yaml")
    [command] = [each for each in commands("fettle deploy kserve") if "--dry-run" in each]
    assert apart.fettle(*command[1:]).out == shown
    assert yaml.safe_load(shown)["kind"] == "InferenceService"


def test_the_run_begins_as_shown(monkeypatch):
    monkeypatch.chdir(ROOT)
    _, shown = (block for language, block in FENCE.findall(PAGE) if language == "yaml")
    [command] = commands("fettle deploy rayjob")
    code, out, _ = typed(*command[1:])
    assert code == 0
    assert shown in out


def test_a_model_is_served_changed_rolled_back_and_taken_away(fettle, api):
    said = []
    for command in commands("fettle deploy"):
        if "--dry-run" in command or command[2] == "predictor":
            continue
        done = fettle(*command[2:])
        said.append((command[2], done.out.split()[0], done.code))
        if service := api.services.get("default/sums"):
            generation = service["metadata"]["generation"]
            service["status"] = {**SEEN, "observedGeneration": generation, "components": {"predictor": REVISIONS}}
    assert said == [
        ("kserve", "created", 0),
        ("kserve", "changed", 0),
        ("status", "ready", 0),
        ("kserve", "changed", 0),
        ("rollback", "all", 0),
        ("delete", "deleted", 0),
    ]
