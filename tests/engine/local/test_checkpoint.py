"""Saving is whole or not at all, on a disk that really is full."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from fettle.config import PolicySpec
from fettle.engine.local.checkpoint import verify, writing
from fettle.engine.local.model import load_model
from fettle.engine.local.policy import LocalPolicy
from fettle.errors import StorageError
from tests.disks import full_disk


def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_survives(tiny, tmp_path):
    model = load_model(tiny, device=torch.device("cpu"), precision="float32", trained=True)
    policy = LocalPolicy(PolicySpec(model=tiny), model)
    policy.save(tmp_path / "first", optimizer=True)
    with full_disk(room=20_000), pytest.raises(StorageError) as full:
        policy.save(tmp_path / "second", optimizer=True)
    assert "could not be written" in full.value.message
    assert "free some space and save again" in full.value.message
    verify(tmp_path / "first")
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


@pytest.mark.skipif(shutil.which("mount") is None, reason="mount is not here")
def test_a_small_file_system_that_fills_up(tmp_path):
    """A real ENOSPC, where this user may mount one; the limit on file sizes above covers the rest."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        with pytest.raises(StorageError, match="No space left"):
            _write_too_much(disk / "big")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _write_too_much(folder: Path) -> None:
    with writing(folder) as scratch:
        (scratch / "data").write_bytes(b"x" * 200_000)


def test_a_fault_of_the_writer_leaves_nothing_and_passes_through(tmp_path):
    with pytest.raises(ZeroDivisionError):
        _write_and_break(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def _write_and_break(folder: Path) -> None:
    with writing(folder) as scratch:
        (scratch / "half").write_text("half")
        _ = 1 / 0


def test_every_file_is_hashed(tmp_path):
    with writing(tmp_path / "x") as scratch:
        (scratch / "a").write_text("1")
        (scratch / "sub").mkdir()
        (scratch / "sub" / "b").write_text("2")
    verify(tmp_path / "x")
    manifest = (tmp_path / "x" / "manifest.json").read_text()
    assert '"a"' in manifest
    assert '"sub/b"' in manifest
    assert Path(tmp_path / "x" / "sub" / "b").read_text() == "2"


def test_the_tokenizers_own_exception_is_the_same_sentence(tmp_path):
    """Its writer raises a bare Exception, whatever the system said."""
    with pytest.raises(StorageError, match="File too large"):
        _write_as_rust_fails(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def _write_as_rust_fails(folder: Path) -> None:
    with writing(folder):
        raise Exception("File too large (os error 27)")
