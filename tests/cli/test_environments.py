"""``fettle environments``: served in a process of its own, listed, tried, and ended; and slips are told."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

SERVE = [sys.executable, "-c", "from fettle.cli import main; main()", "environments", "serve"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [*SERVE, "arithmetic", "--port", "0", "environments.arithmetic.digits=3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = process.stdout.readline()
    assert said.startswith("fettle: serving arithmetic at 127.0.0.1:")
    yield said.split()[-1]
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == "fettle: ending once the episodes under way have; again ends at once\n"


def test_what_a_server_offers_is_listed_and_tried(fettle, address):
    listed = fettle("environments", "list", address)
    assert listed.out.split()[:2] == ["arithmetic", "arithmetic"]
    assert "digits" in listed.out
    tried = fettle("environments", "check", f"{address}/arithmetic", "digits=3", "--episodes", 3)
    assert tried.code == 0
    assert tried.out.startswith("arithmetic: 200 held-out tasks")
    assert "3 episodes, 3 steps" in tried.out


def test_a_type_is_tried_here(fettle):
    tried = fettle("environments", "check", "arithmetic", "digits=2", "--reply", "<answer>9</answer>")
    assert "8 episodes, 8 steps" in tried.out
    listed = fettle("environments", "list").out.splitlines()
    for kind, extra, says in [("remote", "remote", "An environment that"), ("verifiers", "adapters", "Tasks of an")]:
        [line] = [line for line in listed if line.startswith(f"{kind} ")]
        assert line.split(maxsplit=3)[:3] == [kind, "needs", f"fettle[{extra}]"]
        assert line.split(maxsplit=3)[3].startswith(says)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("serve",), "name what to serve, such as arithmetic; there are "),
        (("serve", "arithmetik"), "did you mean arithmetic?"),
        (("serve", "arithmetic", "--host", "0.0.0.0"), "which others can reach"),
        (("serve", "arithmetic", "--token-file", "none"), "cannot be read"),
        (("serve", "arithmetic", "environments.arithmetic.digits=0"), "digits"),
        (("serve", "arithmetic", "environments.arithmetic.digitz=3"), "did you mean 'environments.arithmetic.digits'?"),
        (("serve", "debate"), "debate: games of several players are not served"),
        (("check", "debate"), "debate is a game of several players"),
        (
            ("serve", "arithmetic", "environments.arithmetic.heldout=5000", "environments.arithmetic.digits=1"),
            "hold out",
        ),
        (("check", "127.0.0.1/arithmetic"), "address is '127.0.0.1'"),
        (("check", "10.0.0.1:5/arithmetic"), "tls is not set"),
        (("list", "127.0.0.1:1"), "the server at 127.0.0.1:1 cannot be reached"),
    ],
)
def test_a_slip_is_told_in_one_line(fettle, arguments, sentence, monkeypatch):
    monkeypatch.setattr("fettle.cli.environments.PATIENCE", 0.2)
    ended = fettle("environments", *arguments)
    assert ended.code in (1, 2)
    assert sentence in ended.err
    assert "Traceback" not in ended.err


def test_what_a_client_of_a_server_with_another_environment_asks_for_is_told(fettle, address):
    ended = fettle("environments", "check", f"{address}/arithmetics")
    assert ended.complaint.endswith("only arithmetic; did you mean arithmetic?")
