"""What a shell sees of every command: help at once, exit codes, one sentence and no traceback."""

import subprocess
import sys

import pytest
import typer

from fettle.cli import app

VERBS = (
    "demo",
    "train",
    "submit",
    "pipeline",
    "tune",
    "eval",
    "sample",
    "collect",
    "view",
    "environments",
    "issues",
    "plan",
    "serve",
    "keys",
    "replay",
    "export",
    "deploy",
    "router",
    "runs",
    "info",
    "config",
)
START = "from fettle.cli import main; main()"


def process(*arguments, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", START, *arguments], capture_output=True, text=True, **options)


def test_help_lists_every_verb(fettle):
    done = fettle("--help")
    assert done.code == 0
    assert set(typer.main.get_command(app).commands) == set(VERBS)
    for verb in VERBS:
        assert f" {verb} " in done.out


def test_no_verbs_help_loads_torch(tmp_path):
    code = """
import sys
from typer.testing import CliRunner
import fettle.cli
for verb in sys.argv[1:]:
    done = CliRunner().invoke(fettle.cli.app, [*verb.split(), "--help"])
    assert done.exit_code == 0 and "Usage:" in done.output, verb
print(sorted({"torch", "transformers", "matplotlib"} & sys.modules.keys()))
"""
    verbs = [*VERBS, "config show", "config schema", "router route", "router promote", "router status"]
    done = subprocess.run([sys.executable, "-c", code, *verbs], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_wrong_recipe_is_told_before_torch_is_loaded(desk):
    code = f"""
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules))
sys.argv = ["fettle", *sys.argv[1:]]
{START}
"""
    for verb in ("train", "plan"):
        command = [sys.executable, "-c", code, verb, "tiny.yaml", "gruop_size=4"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=desk)
        assert (done.returncode, done.stdout) == (2, "False\n")
        assert done.stderr.startswith(
            "fettle: argument gruop_size=4: unknown key 'gruop_size'; did you mean 'group_size'?"
        )


@pytest.mark.parametrize(
    "arguments",
    [["nosuch"], ["train", "--nosuch"], ["sample"], ["sample", "model", "prompt", "-n", "0"], ["config"], []],
    ids=" ".join,
)
def test_bad_usage_ends_with_2(fettle, arguments):
    assert fettle(*arguments).code == 2


def test_a_recipe_or_a_run_must_be_named(fettle):
    done = fettle("train")
    assert done.code == 2
    assert done.complaint.startswith("name a recipe")


def test_exit_codes_reach_the_shell(tmp_path):
    assert process("config", "schema", cwd=tmp_path).returncode == 0
    failed = process("train", "--resume", "nowhere", cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr == (
        "fettle: nowhere is no run folder, for it has no config.yaml: see fettle runs for those there are\n"
    )
    wrong = process("train", "nowhere.yaml", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr == "fettle: nowhere.yaml: cannot be read: No such file or directory\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break otherwise there")
def test_a_reader_that_goes_away_is_no_traceback(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", START, "config", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
