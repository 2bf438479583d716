import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from fettle.config import PolicySpec
from fettle.errors import CheckpointError, ConfigError, NotFoundError, StateError, StorageError
from fettle.service.artifacts import CHUNK, Artifacts
from fettle.service.entries import CheckpointEntry
from tests.service.databases import until
from tests.service.served import Served, serving

NOW = datetime(2026, 1, 31, tzinfo=UTC)
WEIGHTS = bytes(range(256)) * (CHUNK // 256) + b"the last piece"


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A bucket of a real server, which is found as s3fs finds any: by the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "somebody")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "something")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3", use_listings_cache=False).mkdir("bucket")
        yield "s3://bucket/some/prefix"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def url(request, tmp_path) -> str:
    if request.param == "folder":
        return f"file://{tmp_path / 'store'}"
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


@pytest.fixture
def entry(tmp_path) -> CheckpointEntry:
    folder = tmp_path / "checkpoints" / "run-1" / "weights" / "one"
    return written(folder, {"adapter_model.safetensors": WEIGHTS, "policy.json": b"{}", "deep/er/file": b"x"})


def written(folder: Path, files: dict[str, bytes]) -> CheckpointEntry:
    for name, contents in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(contents)
    hashes = {name: hashlib.sha256(contents).hexdigest() for name, contents in files.items()}
    manifest = json.dumps({"sha256": hashes}).encode()
    (folder / "manifest.json").write_bytes(manifest)
    spec = PolicySpec(model="tiny")
    digest = hashlib.sha256(manifest).hexdigest()
    id = "/".join(folder.parts[-3:])
    return CheckpointEntry(id, "acme", "run-1", "weights", folder.name, "tiny", spec, str(folder), NOW, digest=digest)


def is_here(entry: CheckpointEntry) -> bool:
    return Path(entry.path).exists()


async def contents(pieces) -> bytes:
    return b"".join([piece async for piece in pieces])


async def test_a_checkpoint_goes_into_the_store_and_comes_back_as_it_was(url, entry):
    artifacts = Artifacts(url)
    kept = await artifacts.keep(entry)
    assert kept.stored_at is not None
    await artifacts.drop(kept)
    assert not is_here(entry)
    assert await artifacts.fetched(kept) == Path(entry.path)
    assert (Path(entry.path) / "adapter_model.safetensors").read_bytes() == WEIGHTS
    assert (Path(entry.path) / "deep/er/file").read_bytes() == b"x"


async def test_files_and_archive_are_the_same_from_here_and_from_the_store(url, entry):
    artifacts = Artifacts(url)
    kept = await artifacts.keep(entry)
    here = [await artifacts.files(kept), await contents(artifacts.archive(kept))]
    await artifacts.drop(kept)
    there = [await artifacts.files(kept), await contents(artifacts.archive(kept))]
    assert here == there
    assert dict(here[0])["adapter_model.safetensors"] == len(WEIGHTS)
    with tarfile.open(fileobj=io.BytesIO(here[1])) as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}
    assert found.keys() == {"adapter_model.safetensors", "policy.json", "deep/er/file", "manifest.json"}
    assert found["adapter_model.safetensors"] == WEIGHTS


async def test_one_file_is_read_piece_by_piece(url, entry):
    artifacts = Artifacts(url)
    kept = await artifacts.keep(entry)
    await artifacts.drop(kept)
    pieces = [piece async for piece in artifacts.read(kept, "adapter_model.safetensors")]
    assert len(pieces) > 1
    assert b"".join(pieces) == WEIGHTS


@pytest.mark.parametrize("name", ["nothing", "../one/policy.json", "/etc/passwd", "", ".", "deep"])
async def test_only_files_of_the_checkpoint_can_be_read(url, entry, name):
    artifacts = Artifacts(url)
    kept = await artifacts.keep(entry)
    with pytest.raises(NotFoundError, match="has no file"):
        await contents(artifacts.read(kept, name))


async def test_what_was_altered_here_does_not_go_into_the_store(url, entry):
    (Path(entry.path) / "policy.json").write_bytes(b"[]")
    with pytest.raises(CheckpointError, match=r"policy\.json .* is not what was saved"):
        await Artifacts(url).keep(entry)


async def test_what_was_altered_in_the_store_does_not_come_back(url, entry):
    artifacts = Artifacts(url)
    kept = await artifacts.keep(entry)
    await artifacts.drop(kept)
    files, root = fsspec.core.url_to_fs(url)
    files.pipe_file(f"{root}/{entry.id}/policy.json", b"[]")
    with pytest.raises(CheckpointError, match=r"policy\.json .* is not what was saved"):
        await artifacts.fetched(kept)
    assert list(Path(entry.path).parent.iterdir()) == []


async def test_a_file_that_the_store_has_lost_is_named(url, entry):
    artifacts = Artifacts(url)
    kept = await artifacts.keep(entry)
    await artifacts.drop(kept)
    files, root = fsspec.core.url_to_fs(url)
    files.rm_file(f"{root}/{entry.id}/policy.json")
    with pytest.raises(CheckpointError, match=r"lacks policy\.json"):
        await artifacts.fetched(kept)


async def test_what_is_deleted_is_gone_everywhere(url, entry):
    artifacts = Artifacts(url)
    kept = await artifacts.keep(entry)
    await artifacts.delete(kept)
    await artifacts.delete(kept)  # nothing is left to delete
    files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    assert not files.exists(f"{root}/{entry.id}/manifest.json")
    assert list(Path(entry.path).parent.iterdir()) == []


async def test_without_a_store_checkpoints_stay_where_the_engine_wrote_them(entry):
    artifacts = Artifacts(None)
    assert await artifacts.keep(entry) == entry
    assert await artifacts.fetched(entry) == Path(entry.path)
    assert await contents(artifacts.read(entry, "policy.json")) == b"{}"
    with pytest.raises(StateError, match="in the state folder alone"):
        await artifacts.drop(entry)
    await artifacts.delete(entry)
    with pytest.raises(CheckpointError, match="no longer in"):
        await artifacts.fetched(entry)
    with pytest.raises(CheckpointError, match="no longer in"):
        await artifacts.files(entry)


async def test_a_store_that_is_away_is_one_sentence(entry, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.filesystem("s3").clear_instance_cache()
    try:
        with pytest.raises(StorageError, match="cannot be reached") as refused:
            await Artifacts("s3://bucket/away").keep(entry)
    finally:
        fsspec.filesystem("s3").clear_instance_cache()
    assert "something" not in refused.value.message


def test_an_address_of_nothing_known_is_refused():
    with pytest.raises(ConfigError, match="artifacts_url is nosuch://a/b"):
        Artifacts("nosuch://a/b")


async def test_of_an_overwritten_checkpoint_nothing_is_left(url, entry, tmp_path):
    artifacts = Artifacts(url)
    await artifacts.keep(entry)
    later = written(tmp_path / "later" / "run-1" / "weights" / "one", {"policy.json": b"[1]"})
    kept = await artifacts.keep(replace(later, id=entry.id))
    await artifacts.drop(kept)
    assert [name for name, _ in await artifacts.files(kept)] == ["manifest.json", "policy.json"]
    assert await contents(artifacts.read(kept, "policy.json")) == b"[1]"


def test_a_service_goes_on_from_a_checkpoint_that_only_the_store_has(tmp_path, tiny_model, s3):
    url = f"{s3}/{tmp_path.name}"
    with serving(tmp_path / "state", tiny_model, artifacts_url=url) as served, served.client() as client:
        run = client.new_run(lora={"rank": 2})
        client.said("POST", f"/v1/runs/{run}/save_state?wait=60", {"name": "one"})
        id = f"{run}/weights/one"
        until(lambda: stored(served, id) is not None)
        files = client.said("GET", f"/v1/checkpoints/{id}/files")
        shutil.rmtree(stored(served, id).path)
        assert client.said("GET", f"/v1/checkpoints/{id}/files") == files
        body = {"checkpoint": id, "optimizer": True}
        assert client.said("POST", "/v1/runs?wait=60", body)["state"] == "active"
        client.said("DELETE", f"/v1/checkpoints/{id}")
    files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    assert files.find(root) == []


def stored(served: Served, id: str) -> CheckpointEntry | None:
    """The checkpoint, once all of it is in the store."""
    entries = served.call(served.service.store.checkpoints())
    return next((entry for entry in entries if entry.id == id and entry.stored_at is not None), None)
