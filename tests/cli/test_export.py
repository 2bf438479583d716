"""``fettle export``: a finished run becomes a folder that stands by itself."""

import json
import shlex
from pathlib import Path

import pytest


def test_a_run_is_exported_and_read_again(run, fettle, tmp_path):
    done = fettle("export", run.folder, "--to", tmp_path / "out", "--push", "acme/sums", "--dry-run")
    assert (done.code, done.err) == (0, "")
    origin = json.loads((tmp_path / "out" / "origin.json").read_text())
    assert origin["run"] == run.folder.name
    first, second, *files = done.out.splitlines()
    assert first == f"merged, run {run.folder.name}, step {origin['step']}, base model {origin['base_model']}: " + str(
        tmp_path / "out"
    )
    assert second == "a dry run, and nothing is sent; to acme/sums, private if it is new, would go:"
    assert sorted(line.split()[1] for line in files) == sorted(path.name for path in (tmp_path / "out").iterdir())
    again = fettle("sample", tmp_path / "out", "What is 1 and 2?", "-n", "1", "--max-tokens", "2")
    assert again.code == 0


@pytest.mark.parametrize(
    ("options", "code", "complaint"),
    [
        (["--merged", "--adapter"], 2, "--merged and --adapter are two forms"),
        (["--dry-run"], 2, "--public and --dry-run are about what is sent"),
        (["--adapter", "--precision", "bfloat16"], 2, "--precision is of merged weights"),
        (["--push", "nobody"], 2, "--push nobody is no name of a repository"),
        (["--adapter"], 1, "there is no adapter in"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_sentence(run, fettle, tmp_path, options, code, complaint):
    done = fettle("export", run.folder, "--to", tmp_path / "out", *options)
    assert done.code == code
    assert done.complaint.startswith(complaint)
    assert not (tmp_path / "out").exists()


def test_the_page_is_right_about_it(run, desk, fettle):
    page = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
    (desk / "runs").mkdir()
    (desk / "runs" / "sums").symlink_to(run.folder)
    typed = [shlex.split(line, comments=True)[1:] for line in page.splitlines() if line.startswith("fettle export ")]
    for command in typed:
        done = fettle(*command)
        # This run trained all of its weights, and has no adapter.
        assert done.code == (1 if "--adapter" in command else 0), done.err
        assert (desk / command[command.index("--to") + 1]).exists() == (done.code == 0)
    assert len(typed) == 3
