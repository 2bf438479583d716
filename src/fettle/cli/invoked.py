"""How the command is typed where it was started: by its own name, or through ``./run``, which says so."""

import os

FETTLE = os.environ.get("FETTLE_AS", "fettle")
