"""``fettle serve``: what it is told, and what it says when it cannot."""

import asyncio
import shutil
import ssl
import subprocess
import time

import httpx
import pytest

from fettle.cli.exits import BAD_USAGE
from fettle.cli.serve import _served
from fettle.cli.serving import opened, run
from fettle.config import ServedModel, ServiceConfig, TinyModel
from fettle.engine.local import make_tiny_model
from fettle.errors import ConfigError, ModelError, StateError
from fettle.service.connections import bound
from tests.service.served import Spawned, serving

from .conftest import typed


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    settings = TinyModel(hidden=32, layers=2, heads=2, context=64)
    return make_tiny_model(settings, tmp_path_factory.mktemp("model") / "tiny", texts=["one two three"] * 9)


def settings(state, model, **given):
    return ServiceConfig(models=(ServedModel(name="tiny", path=model),), state=str(state), **given)


async def open_once(config):
    async with opened(config):
        pass


def test_models_are_named_by_their_folders_or_as_told():
    assert _served(["here/tiny", "big=there/large"], ["Qwen/Qwen3-8B=big"]) == [
        {"name": "tiny", "path": "here/tiny", "aliases": []},
        {"name": "big", "path": "there/large", "aliases": ["Qwen/Qwen3-8B"]},
    ]
    with pytest.raises(ConfigError, match="with one of tiny"):
        _served(["tiny"], ["other=none"])


def test_a_service_of_nothing_says_what_to_name(tmp_path):
    ended = typed("serve", into=tmp_path)
    assert ended.code == BAD_USAGE
    assert "name a model with --model PATH" in ended.err


def test_a_run_is_no_model_to_be_served(tmp_path):
    (tmp_path / "config.yaml").write_text("type: sft")
    with pytest.raises(ConfigError, match="is a run: name one of the models in it"):
        _served([f"mine={tmp_path}"], [])


def test_a_port_in_use_is_said_in_one_sentence():
    with bound("127.0.0.1", 0) as listening, pytest.raises(StateError, match="in use by another program"):
        bound("127.0.0.1", listening.getsockname()[1])


def test_a_state_folder_has_one_service(tmp_path, model):
    async def twice():
        async with opened(settings(tmp_path / "state", model)):
            await open_once(settings(tmp_path / "state", model))

    with pytest.raises(StateError, match="in use by another service"):
        asyncio.run(twice())
    asyncio.run(open_once(settings(tmp_path / "state", model)))


def test_a_model_that_is_not_there_is_said_in_one_sentence(tmp_path):
    with pytest.raises(ModelError, match="there is no model folder"):
        asyncio.run(open_once(settings(tmp_path / "state", "./nowhere")))


def test_an_adapter_is_no_model_to_be_served(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="is an adapter: name its base model"):
        asyncio.run(open_once(settings(tmp_path / "state", str(tmp_path))))


def test_nobody_goes_without_a_key_where_others_can_reach(tmp_path, model):
    with pytest.raises(ValueError, match="can be reached from outside"):
        settings(tmp_path, model, auth="none", host="0.0.0.0")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_with_a_certificate_it_speaks_https(tmp_path, model, certificate):
    files = {"tls_cert": str(certificate / "cert.pem"), "tls_key": str(certificate / "key.pem")}
    with serving(tmp_path / "state", model, **files) as served:
        trusted = ssl.create_default_context(cafile=files["tls_cert"])
        told = httpx.get(served.url.replace("http:", "https:") + "/healthz", verify=trusted, trust_env=False)
        assert told.json() == {"status": "ok"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_without_its_key_is_said_in_one_sentence(tmp_path, model, certificate):
    both = str(certificate / "cert.pem")
    with pytest.raises(ConfigError, match="no certificate and its key"):
        run(settings(tmp_path, model, tls_cert=both, tls_key=both))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "models"),
        (["--model", "a", "prot=1"], "port"),
        (["--model", "a", "--insecure-no-auth", "--host", "0.0.0.0"], "can be reached from outside"),
        (["--model", "a", "--tls-cert", "c.pem"], "go together"),
        (["--model", "a", "--alias", "x=b"], "--alias x=b"),
    ],
)
def test_settings_that_cannot_be_end_it_with_a_sentence(arguments, said, tmp_path):
    ended = typed("serve", *arguments, into=tmp_path)
    assert ended.code == 2
    assert said in ended.complaint


def test_a_signal_ends_it_once_what_was_taken_in_is_done(tmp_path, model):
    service = Spawned(tmp_path / "state", model, "--insecure-no-auth", within=["env"]).start()
    try:
        with service.client() as client:
            run = client.new_run(lora={"rank": 4})
            data = [{"tokens": [5, 9] * 30}] * 64
            for _ in range(8):
                last = client.said(
                    "POST", f"/v1/runs/{run}/forward_backward", {"data": data, "loss": {"type": "causal_lm"}}
                )["id"]
            service.ask_to_stop()
            deadline = time.monotonic() + 20
            answered = client.request("POST", f"/v1/runs/{run}/optim_step", json={})
            while answered.status_code != 503 and time.monotonic() < deadline:
                answered = client.request("POST", f"/v1/runs/{run}/optim_step", json={})
            assert answered.headers["Retry-After"]
            assert client.result(last)["num_tokens"] == 59 * 64
        assert service.ended() == 0
    finally:
        service.close()
