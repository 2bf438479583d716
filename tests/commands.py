"""Commands as they are typed, in this process."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout

from fettle.cli import main


def typed(*words: str) -> tuple[int, str, str]:
    """The exit code and both outputs of a command."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["fettle", *words]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = before
    return 0, out.getvalue(), err.getvalue()
