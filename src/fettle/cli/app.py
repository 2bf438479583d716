"""``fettle``: the verbs, and what their ends mean to a shell."""

import sys
from pathlib import Path

import typer

from fettle.cli.collect import collect
from fettle.cli.demo import demo
from fettle.cli.deploy import deploy
from fettle.cli.environments import environments
from fettle.cli.evaluate import evaluate, sample
from fettle.cli.exits import BAD_USAGE, FAILED, REFUSED
from fettle.cli.export import export
from fettle.cli.inspect import config, info, plan, runs
from fettle.cli.issues import issues
from fettle.cli.keys import keys
from fettle.cli.pipeline import pipeline
from fettle.cli.replay import replay
from fettle.cli.router import router
from fettle.cli.serve import serve
from fettle.cli.submit import submit
from fettle.cli.train import train
from fettle.cli.tune import tune
from fettle.cli.view import view
from fettle.errors import ConfigError, FettleError, RefusedError

app = typer.Typer(
    name="fettle",
    help="Finish language models with reinforcement learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo)
app.command("train")(train)
app.command("submit")(submit)
app.command("pipeline")(pipeline)
app.command("tune")(tune)
app.command("eval")(evaluate)
app.command("sample")(sample)
app.command("collect")(collect)
app.command("view")(view)
app.command("serve")(serve)
app.command("replay")(replay)
app.command("export")(export)
app.command("plan")(plan)
app.command("runs")(runs)
app.command("info")(info)
app.add_typer(config, name="config")
app.add_typer(keys, name="keys")
app.add_typer(environments, name="environments")
app.add_typer(issues, name="issues")
app.add_typer(router, name="router")
app.add_typer(deploy, name="deploy")


def main() -> None:
    """Run a command; it ends with 0 where it was done, or as ``exits`` says."""
    sys.path.insert(0, str(Path.cwd()))  # rewards and the like are found as package.module:function beside the recipe
    try:
        app()
    except ConfigError as error:
        _end(error.message, BAD_USAGE)
    except RefusedError as error:
        _end(error.message, REFUSED)
    except FettleError as error:
        _end(error.message, FAILED)
    except OSError as error:
        _end(f"{error.filename or 'the system'}: {error.strerror or error}", FAILED)


def _end(message: str, code: int) -> None:
    print(f"fettle: {message}", file=sys.stderr)
    sys.exit(code)
