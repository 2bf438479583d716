"""Notes of checkpoints: they say where a checkpoint is, and keep it there."""

import pytest

from fettle.client.kept import NOTE, Notes, id_of, kept, uri_of
from fettle.client.transport import Transport
from fettle.errors import CheckpointError, StorageError
from fettle.types import Checkpoint

SAVED = Checkpoint("step-1", "fettle://run_1/weights/step-1", 1, "abc")


async def test_a_note_stands_for_the_checkpoint(raw, tmp_path):
    noted = await Notes(Transport(raw.url), tmp_path).noted(SAVED)
    assert noted.path == str(tmp_path / "step-1")
    assert (uri_of(noted.path), id_of(noted.path)) == ("fettle://run_1/weights/step-1", "run_1/weights/step-1")
    assert kept(noted.path).service == raw.url


@pytest.mark.parametrize("given", ["run_1/weights/a", "fettle://run_1/weights/a"])
def test_an_address_and_an_id_stand_for_themselves(given):
    assert uri_of(given) == "fettle://run_1/weights/a"


async def test_a_checkpoint_is_deleted_once_its_note_is_gone_in_this_process_or_the_next(raw, tmp_path):
    notes = Notes(Transport(raw.url), tmp_path)
    for number in (1, 2):
        await notes.noted(Checkpoint(f"step-{number}", f"fettle://run_1/weights/step-{number}", number, ""))
    (tmp_path / "step-1" / NOTE).unlink()
    await notes.swept()
    again = Notes(Transport(raw.url), tmp_path)
    (tmp_path / "step-2" / NOTE).unlink()
    await again.swept()
    await again.swept()
    assert [(asked.method, asked.path) for asked in raw.asked] == [
        ("DELETE", f"/v1/checkpoints/run_1/weights/step-{number}") for number in (1, 2)
    ]


async def test_one_that_somebody_else_deleted_is_no_trouble(raw, tmp_path):
    raw.says = lambda asked: (404, {"error": {"code": "not_found", "message": "gone"}})
    notes = Notes(Transport(raw.url), tmp_path)
    await notes.noted(SAVED)
    (tmp_path / "step-1" / NOTE).unlink()
    await notes.swept()
    assert len(raw.asked) == 1


def test_a_note_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / NOTE).write_text("{")
    with pytest.raises(CheckpointError, match=f"{NOTE} cannot be read"):
        uri_of(str(tmp_path))


async def test_a_folder_that_cannot_be_made_is_told(raw, tmp_path):
    (tmp_path / "step-1").touch()
    with pytest.raises(StorageError, match="step-1 could not be written"):
        await Notes(Transport(raw.url), tmp_path).noted(SAVED)
