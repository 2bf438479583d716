"""Episodes to training data: who plays, how many at once, how far ahead, and what is trained on."""

from fettle.rollouts.data import to_datum
from fettle.rollouts.episode import episode, shifted
from fettle.rollouts.following import Following
from fettle.rollouts.group import Group, games, group
from fettle.rollouts.match import WON, Seat, match
from fettle.rollouts.replay import Replay
from fettle.rollouts.stream import stream

__all__ = [
    "WON",
    "Following",
    "Group",
    "Replay",
    "Seat",
    "episode",
    "games",
    "group",
    "match",
    "shifted",
    "stream",
    "to_datum",
]
