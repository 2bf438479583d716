"""Episodes to training data: who plays, how many at once, how far ahead, and what is trained on."""

from fettle.rollouts.data import to_datum
from fettle.rollouts.episode import episode, shifted
from fettle.rollouts.group import Group, group
from fettle.rollouts.match import Seat, match
from fettle.rollouts.replay import Replay
from fettle.rollouts.stream import stream

__all__ = ["Group", "Replay", "Seat", "episode", "group", "match", "shifted", "stream", "to_datum"]
