"""``braze-export ids --output FILE`` as a job, which can be killed and run again."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

import rich_click as click
from attrs import define, field, fields_dict
from click.exceptions import Exit

from braze_export import BrazeClient, Limits
from braze_export.cli.connection import applied
from braze_export.cli.failures import SOME_FAILED
from braze_export.cli.ids_stream import input_of
from braze_export.cli.job_view import View, job_view
from braze_export.cli.options import check_different, check_fields, check_lines, is_given, names
from braze_export.cli.screen import Screen
from braze_export.cli.stopping import Stopping
from braze_export.cli.writing import STANDARD, is_special
from braze_export.jobs import CustomAttributes, Input, JobProgress, JobReport, Table, export_ids
from braze_export.jobs.kinds import Kind
from braze_export.jobs.report.page import report_page

F = TypeVar("F", bound=Callable[..., Any])

_TICK: Final = 0.1  # seconds between two looks at the progress
_MODES: Final = ("replace", "merge", "append")

_OPTIONS: Final = (
    click.option(
        "--into",
        metavar="DESTINATION",
        panel="Job",
        help="Load the profiles into a table, instead of a file: duckdb:FILE, filesystem:FOLDER, "
        "or any destination that dlt knows by its name, set up as dlt wants it. Other than with "
        "duckdb, the job and its other files are in the current directory.",
    ),
    click.option(
        "--table",
        metavar="[DATASET.]NAME",
        default="braze.profiles",
        show_default=True,
        panel="Job",
        help="The table of --into.",
    ),
    click.option(
        "--mode",
        metavar="MODE",
        type=click.Choice(_MODES),
        default="replace",
        show_default=True,
        panel="Job",
        help="What becomes of rows that are in the table. replace: they go; merge: those with an "
        "external_id that comes again go; append: they stay.",
    ),
    click.option(
        "--custom-attributes",
        metavar="FORM",
        type=click.Choice(["json", "map"]),
        default="json",
        show_default=True,
        panel="Job",
        help="How custom attributes stand in Parquet and tables. json: a column of JSON text; "
        "map: a map of names to JSON.",
    ),
    click.option("--fresh", is_flag=True, panel="Job", help="Start over, and drop what is done."),
    click.option(
        "--retry-failed",
        is_flag=True,
        panel="Job",
        help="Ask once more for what failed in the finished job, and add what comes.",
    ),
    click.option(
        "--patience",
        metavar="SECONDS",
        type=click.FloatRange(min=0),
        default=900,
        show_default=True,
        panel="Job",
        help="How long to go on trying while nothing comes through. Then the job ends, to be gone "
        "on with later.",
    ),
    click.option(
        "--json",
        "as_json",
        is_flag=True,
        panel="Job",
        help="Progress and report as JSON on standard output, an object a line.",
    ),
    click.option(
        "--report",
        metavar="FILE.html",
        type=click.Path(dir_okay=False, path_type=Path),
        panel="Job",
        help="Write a page about the run, with charts of its speed and of the rate limit.",
    ),
)
_ONLY_OF_JOBS: Final = ("fresh", "retry_failed", "as_json", "report", "patience")
_WRITTEN: Final = (".parquet", ".gz", ".zst")  # endings that a job makes true
_ONLY_OF_TABLES: Final = ("table", "mode")


def job_options(command: F) -> F:
    """Give a command the options of a job."""
    return applied(_OPTIONS, command)


@define(kw_only=True)
class IdsJob:
    """One run of the command as a job."""

    input: Input
    output: Path | Table
    kind: Kind
    fields: Any = field(converter=names)
    custom_attributes: CustomAttributes
    unknown: str | None
    failed: str | None
    concurrency: int
    ordered: bool
    patience: float
    fresh: bool
    retry_failed: bool
    quiet: bool
    as_json: bool
    report: Path | None

    @classmethod
    def of(cls, options: Mapping[str, Any], limits: Limits) -> "IdsJob | None":
        """Return the job that the options stand for; ``None`` where they ask for a stream.

        Raises:
            UsageError: options that do not go together.
        """
        output = _output(options)
        _check_columns(output)
        if output is None:
            for name in _ONLY_OF_JOBS:
                if is_given(name):
                    option = {"as_json": "json"}.get(name, name).replace("_", "-")
                    raise click.UsageError(
                        f"--{option} is for jobs: it needs a file of identifiers, and --output "
                        "FILE or --into."
                    )
            return None
        check_fields(names(options["fields"]), needed=limits.ids_fast is not None)
        own = {name: options[name] for name in fields_dict(cls) if name in options}
        given = input_of(options) or Input(path=Path(STANDARD))
        job = cls(input=given, output=output, **own)
        job.check()
        return job

    def run(self, client: BrazeClient, screen: Screen) -> None:
        """Run the job, show how far it is, and tell what came of it.

        Raises:
            Exit: with the code for what came of it.
        """
        target = "the table" if isinstance(self.output, Table) else "the output"
        stopping = Stopping(screen)
        with job_view(screen, quiet=self.quiet, as_json=self.as_json, target=target) as view:
            report = self._ran(client, view, stopping)
            view.report(report)
        if report.complete and not report.total and not self.quiet:
            screen.say(self._nothing_done())
        if self.report is not None:
            page = report_page(report, made_at=datetime.now(UTC).astimezone())
            self.report.write_text(page, "utf-8")
            if not self.quiet:
                screen.say(f"The course of the run is in {self.report}")
        if not report.complete:
            raise Exit(stopping.code)
        if report.failed:
            raise Exit(SOME_FAILED)

    def _nothing_done(self) -> str:
        if self.retry_failed:
            return f"Nothing had failed: {self.output} is as it was."
        return f"There were no identifiers: {self.input.path} is empty, and so is the output."

    def _ran(self, client: BrazeClient, view: View, stopping: Stopping) -> JobReport:
        try:
            return asyncio.run(self._export(client, view, stopping))
        except asyncio.CancelledError:
            stopping.tell_end()
            raise Exit(stopping.code) from None

    async def _export(self, client: BrazeClient, view: View, stopping: Stopping) -> JobReport:
        async def show(progress: JobProgress) -> None:
            view.show(progress)

        async with client as braze:
            with stopping.listening():
                return await export_ids(
                    braze,
                    self.input,
                    self.output,
                    kind=str(self.kind),
                    fields=self.fields,
                    custom_attributes=self.custom_attributes,
                    unknown=self.unknown,
                    failed=self.failed,
                    concurrency=self.concurrency,
                    ordered=self.ordered,
                    patience=self.patience,
                    fresh=self.fresh,
                    retry_failed=self.retry_failed,
                    on_progress=show,
                    progress_every=_TICK,
                    stop=stopping.stop,
                )

    def check(self) -> None:
        """Refuse what cannot work, before anything is read or sent.

        Raises:
            UsageError: options that do not go together.
        """
        if STANDARD in {self.unknown, self.failed}:
            raise click.UsageError(
                "With --output FILE or --into, --unknown and --failed need files of their own."
            )
        if isinstance(self.output, Path) and self.output.suffix.lower() not in _WRITTEN:
            check_lines(str(self.output))
        if self.report is None:
            return
        if not self.report.absolute().parent.is_dir():
            raise click.UsageError(f"{self.report.parent} is no directory: --report goes there.")
        output = str(self.output) if isinstance(self.output, Path) else None
        check_different(
            [str(self.input.path)],
            [output, self.unknown, self.failed, str(self.report)],
            "The input, --output, --unknown, --failed and --report",
        )


def _check_columns(output: Path | Table | None) -> None:
    """Refuse options that do nothing with that output.

    Raises:
        UsageError: such a one was given.
    """
    if isinstance(output, Table):
        return
    for name in _ONLY_OF_TABLES:
        if is_given(name):
            raise click.UsageError(f"--{name} is for tables: it needs --into.")
    if is_given("custom_attributes") and (output is None or output.suffix.lower() != ".parquet"):
        raise click.UsageError(
            "--custom-attributes is for Parquet and tables: NDJSON has them as Braze sent them."
        )


def _output(options: Mapping[str, Any]) -> Path | Table | None:
    """Return where a job's profiles go; ``None`` where they are streamed."""
    if options["into"] is not None:
        if options["target"] != STANDARD or options["ids"] or options["limit"]:
            raise click.UsageError(
                "--into is for a file of identifiers, without --output and without --limit."
            )
        dataset, _, name = options["table"].rpartition(".")
        mode = cast("Literal['replace', 'merge', 'append']", options["mode"])
        return Table(destination=options["into"], dataset=dataset or "braze", name=name, mode=mode)
    target = Path(options["target"])
    to_file = options["target"] != STANDARD and not is_special(target)
    streamed = options["ids"] or options["limit"] or options["shape"] != "ndjson"
    return target if to_file and not streamed else None
