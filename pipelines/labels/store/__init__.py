"""The label store: one SQLite file with questions, tasks, annotators and every answer that was ever given."""

from pipelines.labels.store.records import (
    AnnotatorProgress,
    Assignment,
    Conflict,
    HistoryEntry,
    Identity,
    Invalid,
    NotAssigned,
    Paused,
    Progress,
    Receipt,
    Role,
    Session,
    Settings,
    Submission,
)
from pipelines.labels.store.store import LabelStore

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
