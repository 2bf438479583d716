"""What is sent to a hub is what was listed, file by file; without leave nothing is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fettle.deploy.hub import Parcel
from fettle.errors import AuthenticationError, ConfigError

from .hub_server import hub_server

SEND = """
import sys
from pathlib import Path
from fettle.deploy.hub import Parcel
from fettle.errors import FettleError
try:
    print(Parcel(Path(sys.argv[1]), "acme/sums", False).sent())
except FettleError as error:
    print(error.code, error.message)
"""


def sent(folder: Path, url: str, token: str) -> str:
    """What comes of sending, in a process that may use the network."""
    home = str(folder.parent / "home")
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HOME": home}
    done = subprocess.run([sys.executable, "-c", SEND, str(folder)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(bytes(range(256)))
    return made


def test_every_file_arrives(folder):
    with hub_server("hf_known") as hub:
        assert sent(folder, hub.url, "hf_known") == f"{hub.url}/acme/sums/commit/c0ffee"
    assert hub.created["visibility"] == "private"
    assert {name: len(content) for name, content in hub.files.items()} == dict(
        Parcel(folder, "acme/sums", False).files()
    )
    assert hub.files["model.safetensors"] == bytes(range(256))


def test_who_is_not_known_is_told_so(folder):
    with hub_server("hf_known") as hub:
        assert sent(folder, hub.url, "hf_other").startswith("authentication the hub did not take acme/sums: ")
    assert hub.files == {}


def test_without_a_token_nobody_is_asked(folder, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(AuthenticationError, match="hf auth login"):
        Parcel(folder, "acme/sums", False).sent()


@pytest.mark.parametrize("name", ["sums", "a/b/c", "acme/", "https://hub/acme/sums"])
def test_a_repository_has_an_owner_and_a_name(folder, name):
    with pytest.raises(ConfigError, match="write OWNER/NAME"):
        Parcel(folder, name, False)
