"""The queue: the order in which an annotator gets tasks."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from dataclasses import dataclass

from pipelines.labels.store.coding import shuffled_place
from pipelines.labels.store.database import number_of, only_row
from pipelines.labels.store.records import AnnotatorState

RESERVED_SECONDS = 30 * 60.0
"""Time for which a task that was handed out and not answered is reserved for its annotator."""
FIRST_CONTROL = 2
"""Number of tasks before the first control task, for getting used to the page."""

# Tasks that need more labels, but have enough annotators if all who have them on their screens answer.
_BLOCKED = """
    SELECT a.task FROM assignments AS a JOIN tasks AS t ON t.number = a.task
    WHERE a.standing IS NULL AND a.control = 0 AND t.retired = 0 AND a.annotator <> :me AND a.reserved > :now
    GROUP BY a.task HAVING t.labels < :overlap AND t.labels + count(*) >= :overlap
"""
_MINE = "SELECT 1 FROM assignments AS mine WHERE mine.annotator = :me AND mine.task = t.number"
_CONTROLS = f"FROM tasks AS t WHERE t.control IS NOT NULL AND t.retired = 0 AND NOT EXISTS ({_MINE})"
_PICK = f"""
    SELECT t.number FROM tasks AS t INDEXED BY queue
    WHERE t.control IS NULL AND t.retired = 0 AND t.labels < :overlap AND t.number NOT IN ({_BLOCKED})
        AND NOT EXISTS ({_MINE})
    ORDER BY t.labels DESC, t.place LIMIT 1
"""
# Tasks that this annotator has begun. `room`: the task still needs a label. A task whose answer was taken back stays
# with the annotator while the reservation lasts, even if it needs no more labels.
_PENDING = f"""
    SELECT * FROM (
        SELECT t.number, mine.reserved, mine.version, mine.control = 1 AND t.retired = 0 AS control,
            mine.control = 0 AND t.retired = 0 AND t.labels < :overlap AND t.number NOT IN ({_BLOCKED}) AS room
        FROM assignments AS mine JOIN tasks AS t ON t.number = mine.task
        WHERE mine.annotator = :me AND mine.standing IS NULL
    )
    WHERE room OR control OR (version > 0 AND reserved > :now) ORDER BY reserved DESC, version DESC
"""
# Numbers of ordinary tasks that are open for this annotator, and of tasks handed out to them without a current answer.
# The first is counted as all tasks with room, less the few that are not open, which is faster than a test of each.
_COUNTS = f"""
    SELECT (SELECT count(*) FROM tasks WHERE control IS NULL AND retired = 0 AND labels < :overlap)
        - (
            SELECT count(*) FROM tasks AS t INDEXED BY begun
            WHERE t.control IS NULL AND t.retired = 0 AND t.judged > 0 AND t.labels < :overlap
                AND EXISTS ({_MINE} AND mine.standing IS NOT NULL)
        )
        - (
            SELECT count(*) FROM ({_BLOCKED}) AS t
            WHERE NOT EXISTS (
                SELECT 1 FROM assignments AS mine
                WHERE mine.annotator = :me AND mine.task = t.task AND mine.standing IS NOT NULL
            )
        ),
        (SELECT count(*) FROM assignments INDEXED BY open WHERE annotator = :me AND standing IS NULL)
"""
_SKIPPED = """
    SELECT count(*) FROM assignments AS a JOIN history AS h ON h.id = a.standing WHERE a.annotator = ? AND h.skipped = 1
"""


@dataclass(frozen=True)
class Queue:
    """The tasks as one annotator sees them, inside one transaction.

    A task is open for an annotator who has neither judged nor skipped it, as long as fewer others than the overlap
    have judged it or have had it on their screens for less than 30 minutes. A skipped task goes to others.

    Open tasks with the most labels come first. So tasks become complete one after the other, and most labels can be
    compared whenever labeling stops: three labels of one task show agreement, one label of each of three tasks does
    not. Tasks with equally many labels come in an order shuffled by the seed, so that no part of the file is always
    last.

    Control tasks go to every annotator and do not count for the overlap. Of every 1 / `share` tasks one is a control,
    at a random place; every annotator gets them in another order. They end with the ordinary tasks.

    An answer after the 30 minutes is accepted too, so a task can get more labels than the overlap.
    """

    connection: sqlite3.Connection
    name: str
    state: AnnotatorState

    @property
    def me(self) -> int:
        """Number of the annotator."""
        return self.state.me

    @property
    def _asked(self) -> dict[str, object]:
        return {"me": self.me, "overlap": self.state.settings.overlap, "now": time.time()}

    def next(self) -> int | None:
        """Return the number of the task to show, begun or new, and reserve it; None: none is open."""
        begun = self.connection.execute(_PENDING, self._asked).fetchone()
        if begun is not None:
            if begun["reserved"] < time.time() + RESERVED_SECONDS / 2:  # not at every reload, because it writes
                self.connection.execute(
                    "UPDATE assignments SET reserved = ? WHERE annotator = ? AND task = ?",
                    (time.time() + RESERVED_SECONDS, self.me, begun["number"]),
                )
            return int(begun["number"])
        fresh = self.connection.execute(_PICK, self._asked).fetchone()
        if fresh is None:
            return None
        control = self._due_control()
        number = int(fresh["number"]) if control is None else control
        self._assign(number, control is not None)
        return number

    def counts(self) -> tuple[int, int, int]:
        """Return the numbers of tasks answered, skipped and left, control tasks among them.

        Without the control tasks, the numbers would show an annotator which tasks are controls.
        """
        asked = self._asked
        begun = self.connection.execute(_PENDING, asked).fetchall()
        ordinary, unanswered = self.connection.execute(_COUNTS, asked).fetchone()
        fresh = ordinary - sum(row["room"] for row in begun)
        skipped = number_of(self.connection, _SKIPPED, self.me)
        return self._given - unanswered - skipped, skipped, len(begun) + fresh + self._controls_among(fresh)

    @property
    def _given(self) -> int:
        return number_of(self.connection, "SELECT max(number) FROM assignments WHERE annotator = ?", self.me)

    @property
    def _controls_given(self) -> int:
        return number_of(
            self.connection,
            "SELECT count(*) FROM assignments INDEXED BY given_controls WHERE annotator = ? AND control = 1",
            self.me,
        )

    def _place_of_control(self, which: int) -> int:
        """Number of tasks before control task `which`, counted from 0."""
        jitter = shuffled_place(self.state.settings.seed, "place", self.name, which) / 2**62
        return max(FIRST_CONTROL, int((which + jitter) / self.state.settings.control_share))

    def _due_control(self) -> int | None:
        if not self.state.settings.control_share or self._given < self._place_of_control(self._controls_given):
            return None
        rows = self.connection.execute(f"SELECT t.number, t.id {_CONTROLS}", {"me": self.me}).fetchall()
        seed = self.state.settings.seed
        rows.sort(key=lambda row: shuffled_place(seed, "control", self.name, row["id"]))
        return int(rows[0]["number"]) if rows else None

    def _controls_among(self, fresh: int) -> int:
        """Number of control tasks before that many fresh ordinary tasks are handed out."""
        if not self.state.settings.control_share:
            return 0
        rest = self.connection.execute(f"SELECT count(*) {_CONTROLS}", {"me": self.me}).fetchone()[0]
        given, first = self._given, self._controls_given
        for which in range(first, first + rest):
            place = max(given, self._place_of_control(which))
            fresh -= place - given
            if fresh <= 0:
                return which - first
            given = place + 1
        return int(rest)

    def _assign(self, number: int, control: bool) -> None:
        task = only_row(self.connection, "SELECT id, json_array_length(answers) FROM tasks WHERE number = ?", number)
        assert task is not None
        order = list(range(task[1]))
        random.Random(shuffled_place(self.state.settings.seed, "answers", self.name, task["id"])).shuffle(order)
        self.connection.execute(
            "INSERT INTO assignments (annotator, task, number, control, shown, reserved) VALUES (?, ?, ?, ?, ?, ?)",
            (self.me, number, self._given + 1, int(control), json.dumps(order), time.time() + RESERVED_SECONDS),
        )
