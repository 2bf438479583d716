"""The loops. They own no model: all they know is an engine, suites of tasks, and a session."""

from fettle.training.callbacks import Callback
from fettle.training.evaluation import Evaluation, evaluate, interval
from fettle.training.schedule import learning_rate
from fettle.training.session import Progress, Session, Summary

__all__ = ["Callback", "Evaluation", "Progress", "Session", "Summary", "evaluate", "interval", "learning_rate"]
