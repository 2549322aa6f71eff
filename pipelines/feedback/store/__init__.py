"""The label store: one SQLite file with questions, tasks, annotators and every answer that was ever given."""

from pipelines.feedback.store.errors import Conflict, Invalid, NotAssigned, Paused
from pipelines.feedback.store.records import (
    AnnotatorProgress,
    Assignment,
    HistoryEntry,
    Identity,
    Progress,
    Receipt,
    Role,
    Session,
    Settings,
    Submission,
)
from pipelines.feedback.store.store import LabelStore

__all__ = [
    "AnnotatorProgress",
    "Assignment",
    "Conflict",
    "HistoryEntry",
    "Identity",
    "Invalid",
    "LabelStore",
    "NotAssigned",
    "Paused",
    "Progress",
    "Receipt",
    "Role",
    "Session",
    "Settings",
    "Submission",
]
