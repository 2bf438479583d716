"""What the end of a command means to a shell."""

FAILED = 1
BAD_USAGE = 2
"""The command line or the recipe is wrong."""
SWITCHED_OFF = 3
"""What was asked for is off until somebody switches it on."""
REFUSED = 4
"""A gate or a cap was asked, and said no."""
INTERRUPTED = 130
"""Someone pressed Ctrl-C."""
