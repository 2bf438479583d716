"""No two runs share a folder, and each says what it was made with."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fettle.errors import ConfigError, NotFoundError, StorageError
from fettle.tracking import RunFolder


def test_a_folder_is_named_for_the_run_and_the_moment(tmp_path):
    folder = RunFolder.create(tmp_path / "runs", "demo")
    assert folder.path.parent == tmp_path / "runs"
    assert re.fullmatch(r"demo-\d{8}-\d{6}", folder.path.name)
    assert list(folder.path.iterdir()) == []


def test_what_a_run_needs_is_made_where_it_runs(tmp_path):
    folder = RunFolder.at(tmp_path / "somewhere" / "grpo")
    assert folder.checkpoints.is_dir()
    assert folder.transcripts.is_dir()


def test_runs_that_start_at_the_same_instant_never_share_a_folder(tmp_path):
    together = threading.Barrier(8)

    def created(_):
        together.wait()
        return [RunFolder.create(tmp_path / "runs", "demo").path for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        paths = [path for some in pool.map(created, range(8)) for path in some]
    assert len(set(paths)) == 40
    assert set((tmp_path / "runs").iterdir()) == set(paths)


@pytest.mark.parametrize("name", ["", "../elsewhere", "a/b", ".hidden", "a b", "a\nb", "a\0b"])
def test_names_that_no_folder_may_have(tmp_path, name):
    with pytest.raises(ConfigError, match="use letters, digits"):
        RunFolder.create(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file could not be written"):
        RunFolder.create(tmp_path / "file", "demo")
    with pytest.raises(StorageError, match="could not be written"):
        RunFolder.at(tmp_path / "file" / "stage")


def test_a_folder_is_found_again_with_all_that_is_in_it(folder):
    folder.write_config("type: rl\n")
    assert RunFolder.open(folder.path) == folder
    assert RunFolder.at(folder.path).config_path.read_text() == "type: rl\n"


def test_a_folder_without_a_recipe_is_no_run(tmp_path):
    with pytest.raises(NotFoundError, match=r"has no config\.yaml"):
        RunFolder.open(tmp_path)
    with pytest.raises(NotFoundError, match="is no run folder"):
        RunFolder.open(tmp_path / "gone")


def test_each_start_of_a_run_is_remembered(folder):
    folder.write_provenance(["fettle", "train", "recipe.yaml"], threads=2)
    folder.write_provenance(["fettle", "train", "--resume", "run"])
    first, second = json.loads(folder.provenance_path.read_text())["launches"]
    assert first["command"] == ["fettle", "train", "recipe.yaml"]
    assert first["threads"] == 2
    assert second["command"] == ["fettle", "train", "--resume", "run"]
    assert second["threads"] is None


@pytest.mark.parametrize("left", ["", "{", "[]", '{"launches": 3}', '{"launches": [3]}'])
def test_a_damaged_provenance_is_begun_anew(folder, left):
    folder.provenance_path.write_text(left)
    folder.write_provenance(["fettle"])
    assert [launch["command"] for launch in folder.launches()] == [["fettle"]]


def test_a_run_that_never_began_is_taken_away_and_another_is_not(folder):
    stage = RunFolder.at(folder.path / "stage")
    stage.metrics_path.touch()
    folder.discard_unbegun()
    assert stage.metrics_path.exists()
    stage.metrics_path.unlink()
    folder.discard_unbegun()
    assert not folder.path.exists()
