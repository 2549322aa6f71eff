"""The label store: the one door to the file. See `LabelStore`."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from pipelines.errors import LockedError
from pipelines.labels.label_types import LabelSet, Task
from pipelines.labels.store import access, answers, reports
from pipelines.labels.store import contents as setup
from pipelines.labels.store.coding import is_text, label_of, order_of, task_of
from pipelines.labels.store.database import Database, number_of, only_row
from pipelines.labels.store.queue import Queue
from pipelines.labels.store.records import (
    Assignment,
    HistoryEntry,
    Identity,
    Paused,
    Progress,
    Receipt,
    Role,
    Session,
    Settings,
    Submission,
)
from pipelines.run.disk import disk_errors


class LabelStore:
    """One SQLite file. Threads may share it; a call that writes is on the disk when it returns.

    Nothing is cached: what another process wrote, such as tasks of a new round, is there at the next call. Every
    call can raise DiskError, DataError where the file turns out to be damaged, and LockedError where another process
    holds it for 30 seconds.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def create(cls, path: Path, settings: Settings) -> LabelStore:
        """Make the store, or open the one that is there and change its settings.

        Raises:
            ConflictError: there are answers to other questions, or a newer program wrote the file.
            DataError: something else stands there, it is damaged, or the settings are none.
        """
        store = cls.open(path, make=True)
        try:
            store.settings = settings
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open(cls, path: Path, *, make: bool = False) -> LabelStore:
        """Open a store.

        Args:
            path: where it is.
            make: where none is there, make one that is still to be set up: that has no `settings` yet.

        Raises:
            DataError: it is missing, damaged, or something else.
            ConflictError: a newer program wrote it.
        """
        return cls(Database(path, make=make))

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._database.path

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """Hold the store as its one server. Others can still read it and add tasks.

        Raises:
            LockedError: another server holds it.
        """
        lock = FileLock(self.path.with_name(f"{self.path.name}.lock"), mode=0o600)
        try:
            with disk_errors(self.path):
                lock.acquire(blocking=False)
        except Timeout:
            raise LockedError(
                "another label page serves this store", where=str(self.path), hint="use that one, or end it"
            ) from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """One transaction for all calls inside: fast, and on the disk only when the block is left; else undone whole.

        For simulated annotators and imports. Other threads and processes wait until its end.
        """
        with self._database.write():
            yield

    @property
    def is_set_up(self) -> bool:
        """Whether it has settings; what is only just being made, or never came further, has none."""
        with self._database.read() as connection:
            return bool(number_of(connection, "SELECT EXISTS (SELECT 1 FROM settings)"))

    @property
    def settings(self) -> Settings:
        """What is asked, as it is now.

        Raises:
            DataError: the store is not set up; or, on setting them, they are none, or a task does not fit them.
            ConflictError: on setting them: there are answers to other questions.
        """
        return setup.read_settings(self._database)

    @settings.setter
    def settings(self, settings: Settings) -> None:
        setup.write_settings(self._database, settings)

    @property
    def paused(self) -> bool:
        """Whether labelling stands still: no task is given and no answer taken."""
        with self._database.read() as connection:
            return bool(number_of(connection, "SELECT paused FROM settings"))

    @paused.setter
    def paused(self, paused: bool) -> None:
        with self._database.write() as connection:
            connection.execute("UPDATE settings SET paused = ?", (int(paused),))

    def add_tasks(self, tasks: Iterable[Task]) -> int:
        """Add the tasks whose ids are not there yet, all or none; how many were new. Retired ones are in use again.

        Raises:
            DataError: the page cannot show a task: its id is no part of an address, or it has more than 26 answers;
                it does not fit the questions: pairwise needs 2 answers, ranking 2 or more, binary and
                scale 1 or more, demonstration 1 at most; or a known value of a control task is none.
            ConflictError: an id is there already, with another content.
        """
        return setup.add_tasks(self._database, tasks)

    def keep_tasks(self, *, tasks: Collection[str] | None = None, controls: Collection[str] | None = None) -> None:
        """Give only tasks with these ids from now on, also to somebody who had begun another one.

        The others are retired: they count as left no more; their labels stay, and can still be edited and taken back.
        A later call can bring them back into use, and so can `add_tasks`.

        Args:
            tasks: ids of the ordinary tasks to be kept; None: all stay as they are.
            controls: the same of the control tasks.
        """
        setup.keep_tasks(self._database, tasks, controls)

    def add_annotator(self, name: str, *, simulated: bool = False) -> None:
        """Add somebody who judges, once.

        Raises:
            UsageError: the name is blank, too long, cannot be seen, or differs from another only in capitals.
            ConflictError: the name is a human's and `simulated`, or the other way round.
        """
        setup.add_annotator(self._database, name, simulated)

    def remove_annotator(self, name: str) -> None:
        """Forget somebody who has never answered, with their links and sessions.

        Raises:
            UsageError: nobody has that name.
            ConflictError: they have answered, which is kept for ever.
        """
        setup.remove_annotator(self._database, name)

    def annotators(self) -> list[str]:
        """All names, in the order in which they were added."""
        with self._database.read() as connection:
            return [row["name"] for row in connection.execute("SELECT name FROM annotators ORDER BY id")]

    def login_token(self, name: str, role: Role = "annotator") -> str:
        """A token that opens one session, within 7 days; an earlier unused one of that name and role stops working.

        Raises:
            UsageError: there is no human annotator of that name. An admin need not be one.
        """
        return access.login_token(self._database, name, role)

    def redeem(self, token: str) -> Session | None:
        """Open a session of 30 days with a login token, once; None: it is unknown, used or old."""
        return access.redeem(self._database, token)

    def session(self, session_token: str) -> Identity | None:
        """Whose session it is; None: nobody's, or no longer."""
        return access.session(self._database, session_token)

    def revoke(self, name: str) -> None:
        """End all sessions of a person, of both roles, and forget their unused links; the answers stay."""
        access.revoke(self._database, name)

    def next_task(self, annotator: str) -> Assignment | None:
        """The task that is open for this annotator now: one that is begun, else a fresh one (see `Queue`).

        Returns:
            None: nothing is open. What others have on their screens can come back later.

        Raises:
            Paused: labelling is paused.
            NotAssigned: there is no such annotator.
        """
        with self._database.write() as connection:
            desk = setup.desk_of(self._database, annotator)
            if desk.paused:
                raise Paused
            queue = Queue.of(connection, annotator, desk)
            number = queue.next()
            return None if number is None else self._assignment(queue, number)

    def assignment(self, annotator: str, task: str) -> Assignment | None:
        """A task that this annotator was given before, to answer it or to edit the answer; None: never given.

        Raises:
            NotAssigned: there is no such annotator.
        """
        with self._database.read() as connection:
            queue = Queue.of(connection, annotator, setup.desk_of(self._database, annotator))
            known = only_row(connection, "SELECT number FROM tasks WHERE id = ?", task) if is_text(task) else None
            return None if known is None else self._assignment(queue, known["number"])

    def submit(self, annotator: str, task: str, submission: Submission) -> Receipt:
        """Keep an answer. When this returns, it is on the disk (inside `batch`: when the batch ends).

        Raises:
            Invalid: it does not fit the questions.
            Conflict: another version of the label stands than the one it was given to; or its key is that of an answer
                that does not stand any more, or that said something else.
            Paused: labelling is paused. The repetition of an answer that stands already gets its receipt even then.
            NotAssigned: the task was never given to this annotator, or there is none of that name.
        """
        with self._database.write() as connection:
            return answers.submit(connection, setup.desk_of(self._database, annotator), task, submission)

    def undo(self, annotator: str, key: str | None = None) -> str | None:
        """Take back the last answer of this annotator; again: the one before.

        A first answer is withdrawn, and its task is open and next; an edit gives way to the answer before it. Every
        version stays in the history.

        Args:
            annotator: who asks.
            key: made anew for every undo by whoever sends it; the same key again takes nothing more back, and gets the
                same result, even while labelling is paused. None: the request cannot be known again.

        Returns:
            Id of the task; None: there is nothing to take back.

        Raises:
            Paused: labelling is paused, so that it could not be answered anew.
            Invalid: the key is none.
            NotAssigned: there is no such annotator.
        """
        with self._database.write() as connection:
            return answers.undo(connection, setup.desk_of(self._database, annotator), key)

    def history(self, annotator: str, limit: int = 50) -> list[HistoryEntry]:
        """This annotator's standing answers, the newest first.

        Raises:
            NotAssigned: there is no such annotator.
        """
        return reports.history(self._database, setup.desk_of(self._database, annotator).me, limit)

    def progress(self) -> Progress:
        """How far everybody is."""
        with self._database.read() as connection:
            desks = {name: setup.desk_of(self._database, name) for name in self.annotators()}
            queues = [Queue.of(connection, name, desk) for name, desk in desks.items()]
            return reports.progress(self._database, queues)

    def answer_counts(self, *, control: bool = False) -> frozenset[int]:
        """How many answers the tasks have that are handed out; of the control tasks or of all others."""
        return reports.answer_counts(self._database, control)

    def snapshot(self) -> LabelSet:
        """Questions, tasks with their models and known values, and the labels that stand, of one moment.

        Tasks come in the order in which they were added, labels by task and then by annotator.
        """
        with self._database.read():
            return reports.snapshot(self._database, self.settings.questions)

    def _assignment(self, queue: Queue, number: int) -> Assignment | None:
        with self._database.read() as connection:
            row = only_row(
                connection,
                "SELECT t.*, a.shown, a.version, a.number AS mine FROM assignments AS a"
                " JOIN tasks AS t ON t.number = a.task WHERE a.annotator = ? AND a.task = ?",
                queue.me,
                number,
            )
            if row is None:
                return None
            stands = only_row(connection, f"{answers.STANDING} WHERE a.annotator = ? AND a.task = ?", queue.me, number)
            done, left = queue.counts()
        earlier = None if stands is None else label_of(stands)
        return Assignment(task_of(row), order_of(row["shown"]), row["version"], earlier, row["mine"], done, left)
