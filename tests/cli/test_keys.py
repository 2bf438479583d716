import json

import pytest
from typer.testing import CliRunner

from fettle.cli.app import app
from fettle.errors import FettleError


def run(*words: str) -> str:
    """What a command prints, or the error it ends with."""
    result = CliRunner().invoke(app, ["keys", *words])
    if isinstance(result.exception, FettleError):
        return result.exception.message
    assert result.exit_code == 0, result.output
    return result.stdout


def said(*words: str) -> str:
    """What a command tells people, beside what it prints."""
    result = CliRunner().invoke(app, ["keys", *words])
    assert result.exit_code == 0, result.output
    return result.stderr


@pytest.fixture
def state(tmp_path) -> list[str]:
    return ["--state", str(tmp_path / "service")]


def test_a_key_is_printed_once_and_listed_without_its_secret(state):
    secret = run("create", "--tenant", "acme", "--name", "night runs", *state).strip()
    listed = run("list", *state)
    assert secret.startswith("tml-")
    assert "night runs" in listed
    assert secret.split("-", 2)[1] in listed
    assert secret.split("-", 2)[2] not in listed


def test_a_key_is_revoked_by_its_id(state):
    id = json.loads(run("create", "--tenant", "acme", "--json", *state))["id"]
    assert run("revoke", id, *state) == f"{id} of acme is revoked\n"
    assert [key["state"] for key in json.loads(run("list", "--json", *state))] == ["revoked"]


def test_keys_are_listed_by_tenant(state):
    for tenant in ("acme", "other"):
        run("create", "--tenant", tenant, "--admin", *state)
    (key,) = json.loads(run("list", "--tenant", "other", "--json", *state))
    assert (key["tenant"], key["admin"]) == ("other", True)


def test_a_mistyped_folder_is_no_service_without_keys(state, tmp_path):
    assert "there is no service in" in run("list", *state)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_id_is_one_sentence(state):
    run("create", "--tenant", "acme", *state)
    assert run("revoke", "nosuch", *state).startswith("there is no key of the id nosuch: the list of keys shows")


def test_a_key_for_a_folder_without_a_service_says_so_once(state):
    assert f"There is no service in {state[1]} yet" in said("create", "--tenant", "acme", *state)
    assert "There is no service" not in said("create", "--tenant", "acme", *state)


def test_a_key_says_how_it_is_revoked_where_it_was_made(state):
    command = said("create", "--tenant", "acme", *state).split("fettle keys ")[1].split()
    assert command[2:] == state
    assert "is revoked" in run(*command)


def test_a_database_that_is_away_is_one_sentence(state):
    assert "does not answer" in run("list", "--database-url", "postgresql://me:secret@127.0.0.1:1/x", *state)
