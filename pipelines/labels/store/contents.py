"""Settings, tasks and annotators of a store: what is there before the first answer, and may grow afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass

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
from pipelines.labels.store.database import Database, number_of, only_row
from pipelines.labels.store.records import NotAssigned, Settings

MAX_NAME = 80
_COLUMNS = "title, questions, guidelines, overlap, control_share, seed"


def read_settings(database: Database) -> Settings:
    """The settings as they are now."""
    with database.read() as connection:
        row = only_row(connection, f"SELECT {_COLUMNS} FROM settings")
    if row is None:
        raise DataError(
            "the label store was never set up",
            where=str(database.path),
            hint="`rlhf label` with something to judge does it",
        )
    return _settings_of(row)


def write_settings(database: Database, settings: Settings) -> None:
    """Set the store up, or change what may change.

    Raises:
        DataError: no store can be made with them, or a task that is there does not fit the new questions.
        ConflictError: the questions are others, and there are answers.
    """
    check_settings(settings)
    plain = {
        "title": settings.title,
        "questions": questions_text(settings.questions),
        "guidelines": settings.guidelines,
        "overlap": settings.overlap,
        "control_share": float(settings.control_share),
        "seed": settings.seed,
    }
    with database.write() as connection:
        row = only_row(connection, f"SELECT {_COLUMNS} FROM settings")
        if row is None:
            connection.execute(
                f"INSERT INTO settings (one, {_COLUMNS}) VALUES (1, {', '.join(f':{key}' for key in plain)})", plain
            )
        elif dict(row) != plain:
            if row["questions"] != plain["questions"]:
                if number_of(connection, "SELECT EXISTS (SELECT 1 FROM history)"):
                    raise _other_questions(database, questions_of(row["questions"]), settings.questions)
                for task in connection.execute("SELECT * FROM tasks ORDER BY number").fetchall():
                    _check_still_fits(task_of(task), settings.questions)
            connection.execute(f"UPDATE settings SET {', '.join(f'{key} = :{key}' for key in plain)}", plain)


def _check_still_fits(task: Task, questions: tuple[Question, ...]) -> None:
    try:
        check_task(task, questions)
    except DataError as error:
        raise DataError(
            f"a task of the label store does not go with these questions: {error.message}",
            where=error.where,
            hint="ask the same questions, or use a new label store",
        ) from error


def _other_questions(database: Database, old: tuple[Question, ...], new: tuple[Question, ...]) -> ConflictError:
    before = {question.name: question_dict(question) for question in old}
    after = {question.name: question_dict(question) for question in new}
    words = [f"`{name}` is gone" for name in before if name not in after]
    words += [f"`{name}` is new" for name in after if name not in before]
    for name in before.keys() & after.keys():
        for key in sorted(before[name].keys() | after[name].keys()):
            was, now = before[name].get(key), after[name].get(key)
            if was != now:
                words.append(f"{key} of `{name}` was {was!r} and is {now!r}")
    return ConflictError(
        f"the label store has answers to other questions: {'; '.join(words) or 'their order is another'}",
        where=str(database.path),
        hint="ask the same questions, or use a new label store",
    )


def add_tasks(database: Database, tasks: Iterable[Task]) -> int:
    """Add the tasks that are not there yet; all of them or, after an error, none.

    Returns:
        How many were new.

    Raises:
        DataError: a task does not fit the questions.
        ConflictError: another task has the same id.
    """
    settings = read_settings(database)
    new = 0
    with database.write() as connection:
        for task in tasks:
            check_task(task, settings.questions)
            columns = task_columns(task, settings.seed)
            row = only_row(connection, "SELECT * FROM tasks WHERE id = ?", task.id)
            if row is not None:
                check_same(columns, row, str(database.path))
                if row["retired"]:
                    connection.execute("UPDATE tasks SET retired = 0 WHERE number = ?", (row["number"],))
                continue
            names = ", ".join(columns)
            places = ", ".join(f":{name}" for name in columns)
            connection.execute(f"INSERT INTO tasks ({names}) VALUES ({places})", columns)
            new += 1
    return new


def keep_tasks(database: Database, tasks: Collection[str] | None, controls: Collection[str] | None) -> None:
    """Retire what is not named, and take what is named into use (again); None: this kind stays as it is."""
    with database.write() as connection:
        for ids, kind in ((tasks, "control IS NULL"), (controls, "control IS NOT NULL")):
            if ids is not None:
                rows = connection.execute(f"SELECT number, id, retired FROM tasks WHERE {kind}").fetchall()
                now = [(int(row["id"] not in ids), row) for row in rows]
                changed = [(retired, row["number"]) for retired, row in now if retired != row["retired"]]
                connection.executemany("UPDATE tasks SET retired = ? WHERE number = ?", changed)


def add_annotator(database: Database, name: str, simulated: bool) -> None:
    """Add somebody who judges; nothing happens where they are there already.

    Raises:
        UsageError: the name is blank or too long, holds control characters, or differs from another one's only in
            capitals.
        ConflictError: a human has the name of a simulated annotator, or the other way round.
    """
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable() or not is_text(name):
        raise UsageError(f"the name of an annotator has 1 to {MAX_NAME} characters that can be seen, not {name!r}")
    with database.write() as connection:
        row = only_row(connection, "SELECT * FROM annotators WHERE folded = ?", name.casefold())
        if row is None:
            connection.execute(
                "INSERT INTO annotators (name, folded, simulated) VALUES (?, ?, ?)",
                (name, name.casefold(), int(simulated)),
            )
        elif row["name"] != name:
            raise UsageError(f"the names {row['name']!r} and {name!r} differ in capitals only", hint="choose another")
        elif bool(row["simulated"]) != simulated:
            known = "simulated" if row["simulated"] else "human"
            raise ConflictError(
                f"the annotator {name!r} of this label store is {known}",
                where=str(database.path),
                hint="choose another name, or use a new label store",
            )


def remove_annotator(database: Database, name: str) -> None:
    """Forget somebody who has never answered, with their links, sessions and the tasks on their screen.

    Raises:
        UsageError: nobody has that name.
        ConflictError: they have answered, which is kept for ever.
    """
    with database.write() as connection:
        row = only_row(connection, "SELECT id FROM annotators WHERE name = ?", name) if is_text(name) else None
        if row is None:
            raise UsageError(f"no annotator of this label store is called {name!r}", where=str(database.path))
        answers = number_of(connection, "SELECT count(*) FROM history WHERE annotator = ? AND key IS NOT NULL", row[0])
        if answers:
            raise ConflictError(
                f"{name!r} cannot be removed: the label store keeps what they answered ({answers} times)",
                where=str(database.path),
                hint="the admin page can end their sessions",
            )
        connection.execute("DELETE FROM assignments WHERE annotator = ?", (row[0],))
        connection.execute("DELETE FROM annotators WHERE id = ?", (row[0],))
        connection.execute("DELETE FROM tokens WHERE name = ?", (name,))


@dataclass(frozen=True)
class Desk:
    """What every call of an annotator begins with: who it is, what is asked, and whether labelling is paused."""

    me: int
    settings: Settings
    paused: bool


def desk_of(database: Database, name: str) -> Desk:
    """The desk of the annotator of that name.

    Raises:
        NotAssigned: nobody has that name.
    """
    with database.read() as connection:
        row = None
        if is_text(name):
            query = f"SELECT {_COLUMNS}, paused, n.id FROM annotators AS n JOIN settings WHERE n.name = ?"
            row = only_row(connection, query, name)
    if row is None:
        raise NotAssigned(f"no annotator is called {name!r}")
    return Desk(row["id"], _settings_of(row), bool(row["paused"]))


def _settings_of(row: sqlite3.Row) -> Settings:
    return Settings(
        row["title"],
        questions_of(row["questions"]),
        row["guidelines"],
        row["overlap"],
        row["control_share"],
        row["seed"],
    )
