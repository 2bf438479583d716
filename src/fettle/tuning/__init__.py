"""Studies: better settings for a recipe, looked for by trials, shown by runs. Needs the extra ``tune``."""

from fettle.tuning.folder import StudyFolder
from fettle.tuning.report import Line, Side, Standing, line_of, standing, write_standing
from fettle.tuning.space import check_space, overrides, scored_on, seeded
from fettle.tuning.study import ARM, BEST, RECIPE, SEED, Desk
from fettle.tuning.trials import Candidate, Outcome, Trials
from fettle.tuning.worker import Objective, Watch, work

__all__ = [
    "ARM",
    "BEST",
    "RECIPE",
    "SEED",
    "Candidate",
    "Desk",
    "Line",
    "Objective",
    "Outcome",
    "Side",
    "Standing",
    "StudyFolder",
    "Trials",
    "Watch",
    "check_space",
    "line_of",
    "overrides",
    "scored_on",
    "seeded",
    "standing",
    "work",
    "write_standing",
]
