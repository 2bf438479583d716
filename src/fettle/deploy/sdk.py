"""KServe's SDK, which is in an environment of its own."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from fettle.errors import ConfigError


@contextmanager
def sdk() -> Iterator[None]:
    """Where ``fettle.deploy.kserve`` is imported: it is there, and reads no command line, which it would at once.

    Raises:
        ConfigError: it is not installed here.
    """
    found = find_spec("kserve")
    if found is None or found.origin is None:  # a mere folder of that name has no origin
        raise ConfigError(
            "KServe's SDK is not installed here, for it needs an environment of its own: ./run fettle deploy ... "
            "makes it, or pip install 'fettle[server,deploy]' -c constraints-deploy.txt in a new one"
        )
    arguments = sys.argv[1:]
    del sys.argv[1:]
    try:
        yield
    finally:
        sys.argv[1:] = arguments
