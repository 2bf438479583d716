"""Numbers to a page: the run's folder, its trackers, its report. Curves are drawn by ``tracking.plots``, on its own."""

from fettle.tracking.atomic import lasting, write_atomically
from fettle.tracking.base import Tracker, Transcript, tee
from fettle.tracking.console import ConsoleTracker
from fettle.tracking.failures import Phase, read_failures, record_failures
from fettle.tracking.files import FileTracker, read_metrics
from fettle.tracking.folder import RunFolder
from fettle.tracking.hacking import COMPONENT, FLAT, HACKING, LENGTH, REPETITION
from fettle.tracking.profile import write_profile
from fettle.tracking.report import Outcome, report, write_report
from fettle.tracking.runs import RunSummary, list_runs
from fettle.tracking.stages import StageOutcome, stages_table, write_stages_report
from fettle.tracking.transcripts import Search, read_transcripts, write_transcripts

__all__ = [
    "COMPONENT",
    "FLAT",
    "HACKING",
    "LENGTH",
    "REPETITION",
    "ConsoleTracker",
    "FileTracker",
    "Outcome",
    "Phase",
    "RunFolder",
    "RunSummary",
    "Search",
    "StageOutcome",
    "Tracker",
    "Transcript",
    "lasting",
    "list_runs",
    "read_failures",
    "read_metrics",
    "read_transcripts",
    "record_failures",
    "report",
    "stages_table",
    "tee",
    "write_atomically",
    "write_profile",
    "write_report",
    "write_stages_report",
    "write_transcripts",
]
