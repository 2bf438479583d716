"""Batches, calls and results as bytes: one form on the wire, in the journal and in files. No pickle anywhere."""

from fettle.frames.batches import batch_of, batch_tree
from fettle.frames.codec import MEDIA_TYPE, Tree, packed, plain, unpacked
from fettle.frames.results import result_of, result_tree

__all__ = ["MEDIA_TYPE", "Tree", "batch_of", "batch_tree", "packed", "plain", "result_of", "result_tree", "unpacked"]
