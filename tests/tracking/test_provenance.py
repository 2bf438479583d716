"""What can be known is right, and what cannot is null."""

import hashlib
import json
import subprocess
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import pytest

from fettle.tracking.provenance import checkout, launch


@pytest.fixture
def repository(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", tmp_path, *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "tracked").write_text("as committed")
    git("add", "tracked")
    git("commit", "-q", "-m", "first")
    return tmp_path, git("rev-parse", "HEAD")


def test_a_clean_checkout_and_a_dirty_one(repository):
    path, commit = repository
    (path / "runs").mkdir()
    (path / "runs" / "untracked").touch()
    assert checkout(path / "runs") == {"commit": commit, "dirty": False}
    (path / "tracked").write_text("changed since")
    assert checkout(path) == {"commit": commit, "dirty": True}


def test_no_checkout(tmp_path):
    assert checkout(tmp_path) is None
    assert checkout(tmp_path / "gone") is None


def test_a_repository_without_a_commit(tmp_path):
    subprocess.run(["git", "-C", tmp_path, "init", "-q"], check=True)
    assert checkout(tmp_path) is None


def test_without_git_everything_else_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    told = launch(["fettle"], threads=2, data=[])
    assert told["source"] == {"fettle": None, "working_folder": None}
    assert told["versions"]["torch"] == version("torch")


def test_versions_command_and_moment(monkeypatch, repository):
    path, commit = repository
    monkeypatch.chdir(path)
    told = json.loads(json.dumps(launch(["fettle", "train"], threads=2, data=[])))
    assert told["command"] == ["fettle", "train"]
    assert told["versions"]["transformers"] == version("transformers")
    assert told["source"]["working_folder"]["commit"] == commit
    assert abs(datetime.fromisoformat(told["started"]) - datetime.now(UTC)) < timedelta(hours=1)


def test_data_is_known_by_its_hash(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"{}\n")
    told = launch([], threads=None, data=[tmp_path / "rows.jsonl", tmp_path / "gone.jsonl"])
    assert told["data"] == {
        str(tmp_path / "rows.jsonl"): hashlib.sha256(b"{}\n").hexdigest(),
        str(tmp_path / "gone.jsonl"): None,
    }
