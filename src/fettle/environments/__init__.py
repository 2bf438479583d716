"""Where tasks and rewards come from."""

from fettle.environments.base import Environment, Game, GameStep, GameSuite, Observation, StepResult, Suite
from fettle.environments.scoring import ScoringThread
from fettle.environments.sheltered import Sheltered, ShelteredGames, halved, sheltered
from fettle.environments.single_turn import SingleTurn, paying
from fettle.environments.table import ENVIRONMENTS, suite

__all__ = [
    "ENVIRONMENTS",
    "Environment",
    "Game",
    "GameStep",
    "GameSuite",
    "Observation",
    "ScoringThread",
    "Sheltered",
    "ShelteredGames",
    "SingleTurn",
    "StepResult",
    "Suite",
    "halved",
    "paying",
    "sheltered",
    "suite",
]
