"""What a shell runs where a run is begun by a cluster, which may begin it again."""

import shlex
from collections.abc import Sequence


def entrypoint(runs: str, begin: Sequence[str]) -> str:
    """A command that goes on with the run that is in the folder ``runs``, or begins one there by ``begin``."""
    again = (
        f"for run in {shlex.quote(runs)}/*/config.yaml; "
        'do if [ -f "$run" ]; then exec fettle train --resume "${run%/*}"; fi; done'
    )
    return f"{again}; exec {shlex.join([*begin, '--runs', runs])}"
