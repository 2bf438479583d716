"""Environments of other packages, played as our own."""
