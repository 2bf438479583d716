"""``./run`` makes the environment once, mends it after anything, and says one clear sentence where it cannot.

A stand-in for Python answers here in place of the real one, so that nothing is downloaded: it makes a folder that
looks like an environment, notes what pip is asked for, and misbehaves on request.
"""

import ast
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in for Python is a shell script")

STAND_IN = r"""#!/bin/sh
case "$*" in
  "-I -c "*) exit 0 ;;
  *" -m venv "*) for last in "$@"; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python"; exit 0 ;;
esac
echo "$*" >> "$NOTES"
case "$*" in *"$FAIL_AT"*) echo "no such thing"; exit 1 ;; esac
case "$*" in *"$KILL_AT"*) kill -9 $PPID; sleep 1 ;; esac
"""


class Clone:
    """A clone of the project in a folder with a space in its name, with a Python that only pretends."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.path = folder / "a clone"
        self.path.mkdir()
        for name in ("run", "pyproject.toml", "constraints.txt", "constraints-deploy.txt"):
            shutil.copy(root / name, self.path / name)
        self.elsewhere = folder
        self.python = folder / "python3"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)
        self.notes = folder / "notes"

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """``run`` from another folder; what pip was asked for starts afresh."""
        self.notes.write_text("")
        standing = {key: value for key, value in os.environ.items() if key not in ("FETTLE_VENV", "TORCH_INDEX_URL")}
        telling = {"PYTHON": str(self.python), "NOTES": str(self.notes), "FAIL_AT": "@", "KILL_AT": "@", **variables}
        command = [str(self.path / "run"), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self.elsewhere, env=standing | telling
        )

    @property
    def asked(self) -> list[str]:
        """What pip was asked to install, in order, less what it is told every time."""
        lines = self.notes.read_text().splitlines()
        return [
            line.replace("constraints-deploy.txt", "constraints.txt")
            .partition(" -c constraints.txt ")[2]
            .replace("--build-constraint constraints.txt ", "")
            .replace(str(self.path), "{clone}")
            for line in lines
        ]


@pytest.fixture
def clone(root, tmp_path):
    return Clone(root, tmp_path)


FOR_A_RUN = ["--upgrade pip", "--no-index --no-deps torch==2.13.0", "-e .[server]", "-e .[gym]"]
OPENENV = (
    "--upgrade --no-deps --target {clone}/.venv/openenv openenv-core==0.3.0 fastmcp-slim==4.1.2 py-key-value-aio==0.4.4"
    " authlib==1.9.9 joserfc==1.8.0 cachetools==7.3.2 exceptiongroup==1.3.1"
)
KSERVE = (
    "--upgrade --no-deps --target {clone}/.venv/kserve cloudevents==1.13.0 deprecation==2.1.0 durationpy==0.11"
    " grpc-interceptor==0.15.4 kserve==0.21.0 kubernetes==36.0.3 oauthlib==4.0.1 pandas==2.3.3 psutil==5.9.8"
    " requests-oauthlib==2.0.0 tabulate==0.10.0 timing-asgi==0.3.2 websocket-client==1.9.2"
)
TOOLS = [
    "-e .[server,s3,otel,math,remote,adapters,tools,view,issues,tune] --group dev",
    "-e .[mlflow,tensorboard,wandb]",
    "-e .[cluster]",
    "-e .[peers]",
    OPENENV,
    KSERVE,
]
EVERYTHING = FOR_A_RUN + TOOLS


def test_help_lists_the_verbs_and_makes_nothing(clone):
    result = clone.run("--help")
    assert result.returncode == 0
    assert all(f"./run {verb}" in result.stdout for verb in ("demo", "test", "check", "setup"))
    assert not (clone.path / ".venv").exists()


def test_a_python_too_old_to_build_on_can_still_read_it(root):
    assert ast.parse((root / "run").read_text(), feature_version=(3, 6)).body


def test_torch_comes_first_and_the_command_runs_in_the_callers_folder(clone):
    result = clone.run("pwd")
    assert clone.asked == EVERYTHING
    assert result.stdout.splitlines()[-1] == str(clone.elsewhere)


def test_the_command_sees_the_environment_and_keeps_its_exit_status(clone):
    result = clone.run("sh", "-c", 'echo "$VIRTUAL_ENV"; exit 7')
    assert result.stdout.splitlines()[-1] == str(clone.path / ".venv")
    assert result.returncode == 7


def test_the_second_run_sets_nothing_up(clone):
    clone.run("true")
    result = clone.run("true")
    assert (clone.asked, result.stdout) == ([], "")


def test_a_run_needs_no_tools_and_they_are_added_when_they_are_asked_for(clone):
    command = clone.elsewhere / "bin" / "fettle"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\necho trained\n")
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    assert clone.run("fettle", "train", PATH=path).stdout.splitlines()[-1] == "trained"
    assert clone.asked == FOR_A_RUN
    clone.run("fettle", "train", PATH=path)
    assert clone.asked == []
    clone.run("true")
    assert clone.asked == TOOLS
    clone.run("fettle", "train", PATH=path)
    assert clone.asked == []


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "constraints-deploy.txt"])
def test_a_change_of_what_is_installed_is_installed(clone, name):
    clone.run("true")
    with (clone.path / name).open("a") as file:
        file.write("# changed\n")
    clone.run("true")
    assert clone.asked == EVERYTHING


def test_setup_tries_everything_again(clone):
    clone.run("true")
    result = clone.run("setup")
    assert clone.asked == EVERYTHING
    assert result.stdout.splitlines()[-1] == f"ready: {clone.path / '.venv'}"


@pytest.mark.parametrize("step", ["--upgrade pip", "torch==", "--group dev", "[gym]", "[peers]"])
def test_a_run_that_was_killed_is_mended_by_the_next(clone, step):
    assert clone.run("true", KILL_AT=step).returncode == -9
    left_half_made = clone.path / ".venv" / "bin" / "half"
    left_half_made.touch()
    result = clone.run("true")
    assert result.returncode == 0
    assert clone.asked == EVERYTHING
    assert not left_half_made.exists()


def test_an_environment_that_has_moved_is_made_anew(clone):
    clone.run("true")
    (clone.path / ".venv" / "bin" / "old").touch()
    clone.path = clone.path.rename(clone.path.with_name("moved"))
    clone.run("true")
    assert clone.asked == EVERYTHING
    assert not (clone.path / ".venv" / "bin" / "old").exists()


def test_a_torch_that_is_not_on_this_machine_is_fetched(clone):
    assert clone.run("true", FAIL_AT="--no-index").returncode == 0
    assert clone.asked[1:3] == ["--no-index --no-deps torch==2.13.0", "torch==2.13.0"]


def test_another_index_is_asked_for_torch_alone(clone):
    clone.run("true", TORCH_INDEX_URL="https://example.org/cpu")
    assert [line for line in clone.asked if "example.org" in line] == [
        "--extra-index-url https://example.org/cpu torch==2.13.0"
    ]


def test_without_a_compiler_one_line_says_so_and_the_command_runs(clone):
    result = clone.run("echo", "ran", FAIL_AT="[gym]")
    assert result.returncode == 0
    assert (
        "  no reasoning-gym, which a C compiler must build: the demo will use the project's own arithmetic tasks "
        "(./run setup tries again)"
    ) in result.stdout.splitlines()
    assert result.stdout.splitlines()[-1] == "ran"


def test_without_a_server_to_talk_to_one_line_says_so_and_the_command_runs(clone):
    result = clone.run("echo", "ran", FAIL_AT="openenv-core")
    assert result.returncode == 0
    assert "no OpenEnv server" in result.stdout.splitlines()[-3]
    assert result.stdout.splitlines()[-1] == "ran"


def test_what_deploys_sees_its_own_packages_first_and_needs_the_tools(clone):
    command = clone.elsewhere / "bin" / "fettle"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\necho "$PYTHONPATH"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    result = clone.run("fettle", "deploy", "kserve", PATH=path, PYTHONPATH="")
    assert clone.asked == EVERYTHING
    assert result.stdout.splitlines()[-1] == str(clone.path / ".venv" / "kserve")
    assert clone.run("fettle", "runs", PATH=path, PYTHONPATH="").stdout == "\n"


def test_without_kserve_one_line_says_so_and_the_command_runs(clone):
    result = clone.run("echo", "ran", FAIL_AT="kserve==")
    assert result.returncode == 0
    assert "no KServe SDK" in result.stdout.splitlines()[-2]
    assert result.stdout.splitlines()[-1] == "ran"


def test_without_anybody_to_compare_with_one_line_says_so_and_the_command_runs(clone):
    result = clone.run("echo", "ran", FAIL_AT="[peers]")
    assert result.returncode == 0
    assert "no TRL" in result.stdout.splitlines()[-4]
    assert result.stdout.splitlines()[-1] == "ran"


def test_without_ray_one_line_says_so_and_the_command_runs(clone):
    result = clone.run("echo", "ran", FAIL_AT="[cluster]")
    assert result.returncode == 0
    assert "no Ray" in result.stdout.splitlines()[-5]
    assert result.stdout.splitlines()[-1] == "ran"


def test_a_step_that_fails_shows_the_end_of_the_log(clone):
    result = clone.run("echo", "ran", FAIL_AT="--group dev")
    assert result.returncode == 1
    assert "set-up stopped at `tools`" in result.stderr
    assert result.stderr.rstrip().endswith("no such thing")
    assert "ran" not in result.stdout.splitlines()


def test_a_python_that_will_not_do_is_one_sentence(clone):
    result = clone.run("true", PYTHON="/bin/false")
    assert result.returncode == 1
    assert result.stderr == (
        "run: this needs Python 3.11, 3.12, 3.13 or 3.14 with its venv module, and PYTHON=/bin/false is not one: "
        "install one (Debian, Ubuntu: apt install python3-venv) or set PYTHON=/path/to/python3\n"
    )


def test_a_folder_that_it_did_not_make_is_left_alone(clone):
    theirs = clone.path / ".venv" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.write_text("years of work")
    result = clone.run("true")
    assert "was not made by this script" in result.stderr
    assert theirs.read_text() == "years of work"


def test_a_command_that_does_not_exist_is_one_sentence(clone):
    assert clone.run("nosuch").stderr.startswith("run: there is no command `nosuch`")


def test_a_check_that_fails_does_not_hide_the_others(clone):
    clone.run("true")
    for tool, status in {"ruff": 0, "mypy": 1, "lint-imports": 0}.items():
        path = clone.path / ".venv" / "bin" / tool
        path.write_text(f"#!/bin/sh\necho what {tool} said\nexit {status}\n")
        path.chmod(0o755)
    result = clone.run("check")
    assert result.returncode == 1
    assert [line.split() for line in result.stdout.splitlines()[:5]] == [
        ["format", "ok"],
        ["lint", "ok"],
        ["types", "FAILED"],
        ["layers", "ok"],
        ["pages", "ok"],
    ]
    assert "what mypy said" in result.stdout
    assert "what ruff said" not in result.stdout


def test_the_stamp_names_what_it_was_made_from(clone):
    clone.run("true")
    stamp = json.loads((clone.path / ".venv" / "setup.json").read_text())
    assert stamp["python"] == str(clone.python)
    assert stamp["at"] == str(clone.path / ".venv")
