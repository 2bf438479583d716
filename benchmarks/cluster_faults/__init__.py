"""Processes and machines of a cluster that are killed, in runs that go on: ``python -m benchmarks.cluster_faults``."""

from benchmarks.cluster_faults.course import followed, killed, rows

__all__ = ["followed", "killed", "rows"]
