"""What the end of a command means to a shell."""

FAILED = 1
BAD_USAGE = 2
"""The command line or the recipe is wrong."""
INTERRUPTED = 130
"""Someone pressed Ctrl-C."""
