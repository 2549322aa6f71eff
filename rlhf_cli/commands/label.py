"""`rlhf label`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.config.feedback_section import LabelSection
from pipelines.errors import UsageError
from pipelines.report.safe_text import visible
from rlhf_cli import failures, options, settings
from rlhf_cli.console import ConsoleReporter, print_json

if TYPE_CHECKING:
    import socket

    from pipelines.config.data_section import OnBadRow
    from pipelines.config.data_section import Source as DataSource
    from pipelines.labels.label_types import LabelSet
    from pipelines.labels.store.fill import StoreChanges
    from pipelines.labels.store.store import LabelStore

Source = Annotated[
    str | None,
    typer.Argument(
        metavar="[SOURCE]",
        help="Tasks written by `rlhf sample`, or comparisons, judgements, prompts or demonstrations in any accepted "
        "format. Default: the sampled tasks of --run-dir, or the tasks in --store.",
    ),
]
Blind = Annotated[
    bool,
    typer.Option(
        "--blind",
        help="Compare the answers of PPO and the baseline in the evaluation of --run-dir, in a store of their own.",
    ),
]
Store = Annotated[
    Path | None,
    typer.Option(
        "--store", metavar="FILE", help="SQLite file for the labels. Default: SOURCE.labels.sqlite beside the source."
    ),
]
Annotator = Annotated[
    list[str] | None,
    typer.Option(
        "--annotator",
        metavar="NAME",
        help="Name of an annotator, who gets a link. Repeatable. Default for a new store: me.",
    ),
]
Without = Annotated[
    list[str] | None,
    typer.Option(
        "--without", metavar="NAME", help="Name of an annotator to remove, who has not answered anything. Repeatable."
    ),
]
Settings = Annotated[
    dict[str, Any], options.SectionKeys(LabelSection, ("guidelines", "overlap", "controls", "control_share"))
]
Title = Annotated[str | None, typer.Option("--title", metavar="T", help="Title of the project, shown on every page.")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of every shuffle.")]
Markdown = Annotated[
    bool,
    typer.Option("--markdown", help="Render Markdown and code in prompts and answers, without HTML, images and links."),
]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, metavar="N", help="Port of the page; 0: any free one.")]
Host = Annotated[
    str,
    typer.Option("--host", metavar="H", help="Address to listen at; one that other machines can reach needs --i-know."),
]
IKnow = Annotated[
    bool,
    typer.Option(
        "--i-know", help="Confirm that others on the network may reach the page, which has no encryption of its own."
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="Address that people open if it differs, such as that of a proxy with TLS."
    ),
]


def label(
    source: Source = None,
    run_dir: options.Dir = None,
    blind: Blind = False,
    store: Store = None,
    annotator: Annotator = None,
    without: Without = None,
    question: options.Questions = None,
    *,
    asked: Settings,
    title: Title = None,
    seed: Seed = None,
    rows: options.SourceOptions = options.DEFAULT_ROWS,
    on_bad_row: options.OnBad = None,
    markdown: Markdown = False,
    port: Port = 8765,
    host: Host = "127.0.0.1",
    i_know: IKnow = False,
    url: Url = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Serve the page where people judge answers.

    They rank, compare, rate or write answers in a browser; the page works offline.
    Prints one link for each annotator and one for the admin; each link works once, in one browser. Every answer that
    the page acknowledges is on disk. Ctrl-C stops the page; the same command opens it again with all earlier answers.
    With --run-dir, questions and overlap come from the configuration of the run. With --blind beside it, people
    compare the answers of its evaluation without being told who wrote them.
    """
    if source is not None and run_dir is not None:
        raise UsageError(
            "SOURCE and --run-dir do not go together", hint="with --run-dir, the sampled tasks of the run are judged"
        )
    if on_bad_row is not None and source is None:
        raise UsageError("--on-bad-row goes with SOURCE only")
    if blind and run_dir is None:
        raise UsageError("--blind compares the answers of a run: name it with --run-dir")
    if blind and (question is not None or store is not None):
        raise UsageError("--blind has a question and a store of its own", where="--question" if question else "--store")
    if run_dir is not None and not blind:
        _refuse_what_the_run_says(run_dir, question=question, seed=seed, **asked)
    from pipelines.labels.page import serve

    if not serve.is_loopback(host) and not i_know:
        raise UsageError(
            f"at {host} everybody on the network can reach the page, and nothing of it is encrypted",
            where="--host",
            hint="give --i-know if that is what you want; a proxy with TLS in front of --host 127.0.0.1, or a tunnel "
            "(ssh -L), is safer",
        )
    from pipelines.labels.blind import blind_tasks
    from pipelines.labels.questions import parse_questions
    from pipelines.labels.store.fill import StoreChanges, changes_of_run, newest_tasks, read_guidelines
    from pipelines.labels.store.store import LabelStore, announced

    reporter = ConsoleReporter(quiet=quiet)
    if "guidelines" in asked:
        asked["guidelines"] = read_guidelines(asked["guidelines"])
    changes = StoreChanges(
        questions=parse_questions(question) if question else None,
        title=title,
        annotators=tuple(annotator or ()),
        without=tuple(without or ()),
        seed=seed,
        **asked,
    )
    if run_dir is not None and blind:
        _, run = settings.resolve(None, run_dir)
        tasks = blind_tasks(run)
        changes = replace(changes, first_title=run.root.resolve().name, own=frozenset(tasks.tasks))
        store = run.blind_store
        reporter.info(f"`rlhf report {run.root}` sets what people prefer beside what the judges do")
    elif run_dir is not None:
        config, run = settings.resolve(None, run_dir)
        tasks = _tasks(settings.source_of(str(newest_tasks(run.root))), 0, reporter)
        changes = changes_of_run(config, run.root).joined_with(changes)
        store = store or run.label_store
    elif source is not None:
        tasks = _tasks(rows.source(source), seed or 0, reporter, on_bad_row or "fail")
        store = store or _beside(source)
    elif store is not None:
        tasks = None
    else:
        raise UsageError(
            "nothing is named that could be judged",
            hint="give a file of tasks, comparisons or prompts, --run-dir DIR, or --store FILE of earlier labels",
        )
    with serve.bind(host, port) as listener:
        origins = serve.origins_of(host, listener.getsockname()[1], url)
        # only who serves a store may set it up: options of a page that is refused must not reach one that is open
        with LabelStore.open(store, make=tasks is not None) as opened, announced(opened, origins[0]):
            _set_up(opened, tasks, changes, reporter)
            if not serve.is_loopback(host):
                reporter.warn(
                    "others on the network can reach this page. Between it and them nothing is encrypted, links "
                    "and answers included, unless a proxy with TLS stands in front and --url names its address"
                )
            _serve(opened, listener, origins, markdown, json, reporter)


def _refuse_what_the_run_says(run_dir: Path, **given: object) -> None:
    """Options that the configuration of a run holds: the run would set them back, or ask other things than the page."""
    for name, value in given.items():
        if value is None:
            continue
        key = {"question": "feedback.label.questions", "seed": "run.seed"}.get(name, f"feedback.label.{name}")
        how = f"give it there: `rlhf all --run-dir {run_dir} --set {key}={value}`, then open the page again"
        if name == "question":
            how = f"change {key} in the configuration and give it to `rlhf all --config FILE --run-dir {run_dir}`"
        raise UsageError(
            f"with --run-dir the configuration of the run says this, in {key}",
            where=f"--{name.replace('_', '-')}",
            hint=how,
        )


def _set_up(store: LabelStore, tasks: LabelSet | None, changes: StoreChanges, reporter: ConsoleReporter) -> None:
    """Bring what is asked for into the store, and warn of what is not as it should be."""
    from pipelines.labels.store import fill

    fill.fill(store, tasks, changes, reporter.info)
    fill.add_somebody(store)
    for warning in (fill.too_few(store), fill.controls_that_show(store)):
        if warning:
            reporter.warn(warning)


def _serve(
    store: LabelStore,
    listener: socket.socket,
    origins: Sequence[str],
    markdown: bool,
    json: bool,
    reporter: ConsoleReporter,
) -> None:
    """Open the page over a store, and say where, until a signal ends it."""
    from pipelines.labels.page import serve
    from pipelines.labels.page.admin import fresh_links
    from pipelines.labels.page.app import make_app

    links = fresh_links(store, origins[0])
    progress = store.progress()

    def started() -> None:
        reporter.info(
            f"{progress.tasks} tasks, {progress.left} answers still wanted; they go to {store.path}\n"
            "Open a link in a browser: it works once, then the browser is known. Ctrl-C ends the page."
        )
        _print_links(store, origins[0], links, json)

    try:
        serve.serve(make_app(store, origins=origins, markdown=markdown), listener, started=started)
    except (KeyboardInterrupt, failures.Terminated) as error:  # how it is meant to end
        reporter.info(f"the page is closed; what was answered is kept in {store.path}")
        raise SystemExit(143 if isinstance(error, failures.Terminated) else 130) from None


def _print_links(store: LabelStore, address: str, links: dict[str, str], json: bool) -> None:
    if json:
        people = [{"name": name, "link": link} for name, link in links.items()]
        admin = people.pop()
        print_json({"address": address, "store": str(store.path), "annotators": people, "admin": admin})
    else:
        width = max(len(name) for name in links)
        for name, link in links.items():
            print(f"{visible(name):{width}}  {link}")
    sys.stdout.flush()


def _tasks(source: DataSource, seed: int, reporter: ConsoleReporter, on_bad_row: OnBadRow = "fail") -> LabelSet:
    from pipelines.labels.task_sources import open_source

    tasks = open_source(source, seed=seed, on_bad_row=on_bad_row, reporter=reporter)
    if tasks.labels:
        reporter.warn(f"{source.path} holds {len(tasks.labels)} labels too: they are not taken over, only the tasks")
    return tasks


def _beside(source: str) -> Path:
    """The store that goes with a file; one of a hub data set lies in the working directory."""
    path = Path(source)
    stem = path.name.split(".")[0] or "tasks"
    return (path.parent if path.exists() else Path()) / f"{stem}.labels.sqlite"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=options.examples(
            "rlhf label tasks.jsonl --annotator ann --annotator bo --overlap 2",
            "rlhf label pairs.jsonl --question helpful:pairwise --question polite:scale7",
            "rlhf label --run-dir runs/my --annotator ann",
            "rlhf label --run-dir runs/my --blind --annotator ann --annotator bo --overlap 2",
        )
    )(options.with_groups(label))
