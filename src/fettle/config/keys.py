"""Keys, which no recipe holds: they are in the environment, under a name that is given."""

import os

from fettle.errors import ConfigError


def key_from(variable: str | None, *, named: str) -> str | None:
    """The key in the environment variable that ``named`` names; None where it names none.

    Raises:
        ConfigError: it is not there.
    """
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ConfigError(f"{named} is {variable}, and there is no such environment variable: put the key there")
    return os.environ[variable]
