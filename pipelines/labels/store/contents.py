"""Contents of a label store before the first answer: settings, tasks and annotators. They may grow afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable

from pipelines.errors import ConflictError, DataError, UsageError
from pipelines.labels.label_types import Question, Task, question_dict
from pipelines.labels.store.coding import (
    check_same,
    check_settings,
    check_task,
    is_text,
    questions_of,
    questions_text,
    task_columns,
    task_of,
)
from pipelines.labels.store.database import StorePart, number_of, only_row
from pipelines.labels.store.records import AnnotatorState, NotAssigned, Settings

ADMIN = "admin"
"""Name of the admin; no annotator may have it."""
MAX_NAME = 80
_COLUMNS = "title, questions, guidelines, overlap, control_share, seed"


class Contents(StorePart):
    """Settings, tasks and annotators."""

    @property
    def is_set_up(self) -> bool:
        """Whether the store has settings; a new one has none yet."""
        with self._database.read() as connection:
            return bool(number_of(connection, "SELECT EXISTS (SELECT 1 FROM settings)"))

    @property
    def settings(self) -> Settings:
        """Current settings.

        Raises:
            DataError: on reading, the store is not set up; on setting, the settings are invalid, or a task does not
                fit them.
            ConflictError: on setting, there are answers to other questions.
        """
        with self._database.read() as connection:
            row = only_row(connection, f"SELECT {_COLUMNS} FROM settings")
        if row is None:
            raise DataError(
                "the label store was never set up", where=str(self.path), hint="`rlhf label SOURCE` sets it up"
            )
        return _settings_of(row)

    @settings.setter
    def settings(self, settings: Settings) -> None:
        check_settings(settings)
        questions, share = questions_text(settings.questions), float(settings.control_share)
        plain = vars(settings) | {"questions": questions, "control_share": share}
        with self._database.write() as connection:
            row = only_row(connection, f"SELECT {_COLUMNS} FROM settings")
            if row is None:
                places = ", ".join(f":{key}" for key in plain)
                connection.execute(f"INSERT INTO settings (one, {_COLUMNS}) VALUES (1, {places})", plain)
            elif dict(row) != plain:
                if row["questions"] != questions:
                    if number_of(connection, "SELECT EXISTS (SELECT 1 FROM history)"):
                        raise _other_questions(str(self.path), questions_of(row["questions"]), settings.questions)
                    for task in connection.execute("SELECT * FROM tasks ORDER BY number").fetchall():
                        _check_still_fits(task_of(task), settings.questions)
                connection.execute(f"UPDATE settings SET {', '.join(f'{key} = :{key}' for key in plain)}", plain)

    @property
    def paused(self) -> bool:
        """Whether labeling is paused: no task is handed out and no answer is accepted."""
        with self._database.read() as connection:
            return bool(number_of(connection, "SELECT paused FROM settings"))

    @paused.setter
    def paused(self, paused: bool) -> None:
        with self._database.write() as connection:
            connection.execute("UPDATE settings SET paused = ?", (int(paused),))

    def add_tasks(self, tasks: Iterable[Task]) -> int:
        """Add the tasks whose ids are new, all or none, and put retired ones back into use.

        Returns:
            Number of new tasks.

        Raises:
            DataError: the page cannot show a task: its id cannot be part of an address, or it has more than 26 answers;
                it does not fit the questions: pairwise needs 2 answers, ranking 2 or more, binary and
                scale 1 or more, demonstration 1 at most; or a control task has an invalid known value.
            ConflictError: an id exists already, with another content.
        """
        settings = self.settings
        new = 0
        with self._database.write() as connection:
            for task in tasks:
                check_task(task, settings.questions)
                columns = task_columns(task, settings.seed)
                row = only_row(connection, "SELECT * FROM tasks WHERE id = ?", task.id)
                if row is not None:
                    check_same(columns, row, str(self.path))
                    if row["retired"]:
                        connection.execute("UPDATE tasks SET retired = 0 WHERE number = ?", (row["number"],))
                    continue
                names, places = ", ".join(columns), ", ".join(f":{name}" for name in columns)
                connection.execute(f"INSERT INTO tasks ({names}) VALUES ({places})", columns)
                new += 1
        return new

    def keep_tasks(self, *, tasks: Collection[str] | None = None, controls: Collection[str] | None = None) -> None:
        """Hand out only tasks with these ids from now on, also to somebody who had begun another one.

        The others are retired: they no longer count as left; their labels stay, and can still be edited and taken
        back. A later call, or `add_tasks`, can put them back into use.

        Args:
            tasks: ids of the ordinary tasks to keep; None: no change.
            controls: ids of the control tasks to keep; None: no change.
        """
        with self._database.write() as connection:
            for ids, kind in ((tasks, "control IS NULL"), (controls, "control IS NOT NULL")):
                if ids is not None:
                    rows = connection.execute(f"SELECT number, id, retired FROM tasks WHERE {kind}").fetchall()
                    now = [(int(row["id"] not in ids), row) for row in rows]
                    changed = [(retired, row["number"]) for retired, row in now if retired != row["retired"]]
                    connection.executemany("UPDATE tasks SET retired = ? WHERE number = ?", changed)

    def add_annotator(self, name: str, *, simulated: bool = False) -> None:
        """Add an annotator; nothing happens if they are in the store already.

        Raises:
            UsageError: the name is blank, too long, not printable or that of the admin, or differs from another one
                only in case.
            ConflictError: the name belongs to a human and `simulated` is set, or the other way round.
        """
        name = name.strip()
        if name.casefold() == ADMIN:
            raise UsageError(f"an annotator cannot be called {name!r}, which is the name of the admin")
        if not name.strip() or len(name) > MAX_NAME or not name.isprintable() or not is_text(name):
            raise UsageError(f"the name of an annotator must have 1 to {MAX_NAME} printable characters, not {name!r}")
        with self._database.write() as connection:
            row = only_row(connection, "SELECT * FROM annotators WHERE folded = ?", name.casefold())
            if row is None:
                connection.execute(
                    "INSERT INTO annotators (name, folded, simulated) VALUES (?, ?, ?)",
                    (name, name.casefold(), int(simulated)),
                )
            elif row["name"] != name:
                raise UsageError(f"the names {row['name']!r} and {name!r} differ only in case", hint="choose another")
            elif bool(row["simulated"]) != simulated:
                known = "simulated" if row["simulated"] else "human"
                raise ConflictError(
                    f"the annotator {name!r} of this label store is {known}",
                    where=str(self.path),
                    hint="choose another name, or use a new label store",
                )

    def remove_annotator(self, name: str) -> None:
        """Remove an annotator who has never answered, with their links, sessions and the task on their screen.

        Raises:
            UsageError: nobody has that name.
            ConflictError: they have answered, and answers are kept for ever.
        """
        with self._database.write() as connection:
            row = only_row(connection, "SELECT id FROM annotators WHERE name = ?", name) if is_text(name) else None
            if row is None:
                raise UsageError(f"no annotator of this label store is called {name!r}", where=str(self.path))
            answers = number_of(
                connection, "SELECT count(*) FROM history WHERE annotator = ? AND key IS NOT NULL", row[0]
            )
            if answers:
                raise ConflictError(
                    f"{name!r} cannot be removed: the label store has answers of theirs ({answers}), and keeps them",
                    where=str(self.path),
                    hint="the admin page can end their sessions",
                )
            connection.execute("DELETE FROM assignments WHERE annotator = ?", (row[0],))
            connection.execute("DELETE FROM annotators WHERE id = ?", (row[0],))
            connection.execute("DELETE FROM tokens WHERE name = ?", (name,))

    def annotators(self) -> list[str]:
        """Return all names, in the order in which they were added."""
        with self._database.read() as connection:
            return [row["name"] for row in connection.execute("SELECT name FROM annotators ORDER BY id")]

    def _annotator(self, name: str) -> AnnotatorState:
        """Return the state that every request of an annotator needs."""
        query = f"SELECT {_COLUMNS}, paused, n.id FROM annotators AS n JOIN settings WHERE n.name = ?"
        with self._database.read() as connection:
            row = only_row(connection, query, name) if is_text(name) else None
        if row is None:
            raise NotAssigned(f"no annotator is called {name!r}")
        return AnnotatorState(row["id"], _settings_of(row), bool(row["paused"]))


def _check_still_fits(task: Task, questions: tuple[Question, ...]) -> None:
    try:
        check_task(task, questions)
    except DataError as error:
        raise DataError(
            f"a task of the label store does not fit these questions: {error.message}",
            where=error.where,
            hint="ask the same questions, or use a new label store",
        ) from error


def _other_questions(store: str, old: tuple[Question, ...], new: tuple[Question, ...]) -> ConflictError:
    before = {question.name: question_dict(question) for question in old}
    after = {question.name: question_dict(question) for question in new}
    words = [f"`{name}` is missing" for name in before if name not in after]
    words += [f"`{name}` is new" for name in after if name not in before]
    for name in before.keys() & after.keys():
        for key in sorted(before[name].keys() | after[name].keys()):
            was, now = before[name].get(key), after[name].get(key)
            if was != now:
                words.append(f"{key} of `{name}` was {was!r} and is {now!r}")
    return ConflictError(
        f"the label store has answers to other questions: {'; '.join(words) or 'their order differs'}",
        where=store,
        hint="ask the same questions, or use a new label store",
    )


def _settings_of(row: sqlite3.Row) -> Settings:
    return Settings(**{key: row[key] for key in _COLUMNS.split(", ")} | {"questions": questions_of(row["questions"])})
