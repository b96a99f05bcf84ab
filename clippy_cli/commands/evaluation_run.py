"""One ``clippy evaluate``: what is shown while models are measured, and the files that are left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands.profile_table import print_profile, profile_record
from clippy_cli.errors import ExitCode, encodable
from clippy_cli.notices import Notices
from clippy_cli.stages import REPORT, stage

if TYPE_CHECKING:
    from clippy_cli.evaluation.evaluate import Host
    from clippy_cli.evaluation.run import Progress
    from clippy_cli.evaluation.set_evaluation import SetEvaluation
    from clippy_cli.evaluation.suites import OpenSuite
    from clippy_cli.processes import Processes
    from clippy_cli.reporting.evaluation.report import Example
    from clippy_cli.stages import Profile


class EvaluationRun:
    """What the command line adds to :func:`~clippy_cli.evaluation.evaluate.evaluate`: progress, tables and files."""

    def __init__(
        self,
        out: Path,
        processes: Processes,
        *,
        command: str,
        seed: int,
        suite: OpenSuite | None = None,
        profile: Profile | None = None,
    ) -> None:
        self._out, self._processes, self._command, self._profile = out, processes, command, profile
        self._seed, self._suite = seed, suite
        self._evaluations: list[SetEvaluation] = []
        self._examples: list[list[Example]] = []
        self._notices = Notices()

    def host(self, *, shown: bool, worst_first: bool) -> Host:
        """What the library calls meanwhile: spinners, progress, results as they come, where they are ``shown``."""
        from clippy_cli.evaluation.evaluate import Host
        from clippy_cli.reporting.evaluation.files import JOURNALS, note_command

        return Host(
            processes=self._processes,
            journals=self._out / JOURNALS,
            checked=lambda: note_command(self._out, self._command) if self._processes.first else None,
            busy=console.status,
            progress=_shown_progress,
            evaluated=partial(self._keep, shown=shown, worst_first=worst_first),
        )

    def finish(self, *, json: bool, unfinished: bool = False) -> None:
        """Write the files of what was measured, and show results side by side.

        Where the run is ``unfinished``, since something failed later, what was counted stays noted for the next try.
        """
        if not self._processes.first or not self._evaluations:
            return
        from clippy_cli.commands.evaluation_tables import print_suite, print_summary
        from clippy_cli.evaluation.evaluate import make_document
        from clippy_cli.reporting.evaluation.files import remove_journals, save_document, save_images

        with stage(REPORT):
            document = make_document(
                self._evaluations, seed=self._seed, command=encodable(self._command), suite=self._suite
            )
            document = document.model_copy(update={"results": save_images(self._out, self._evaluations)})
            written = save_document(self._out, document, self._examples)
            if not unfinished:
                remove_journals(self._out, self._evaluations)
        if self._profile is not None:
            counted = sum(len(next(iter(evaluation.records.values()), ())) for evaluation in self._evaluations)
            print_profile(profile_record(self._profile, counted))
        self._notices = Notices(record.notice() for record in document.notices)
        if json:
            console.print_json(document.model_dump(by_alias=True))
            return
        if document.suite is not None:
            print_suite(document)
        elif len(document.results) > 1:
            print_summary(document)
        console.out.print(Text(f"wrote {', '.join(map(str, written))}", "dim"), soft_wrap=True)

    def leave(self) -> None:
        """Print the notices, and leave with the exit code where images or sets were not used; return without any."""
        console.print_notices(self._notices)
        data = [result.data for evaluation in self._evaluations for result in evaluation.results]
        missing = self._suite is not None and self._suite.missing
        if any(entry.failed for entry in data) or missing or self._notices.incomplete:
            raise typer.Exit(ExitCode.PARTIAL if any(entry.images for entry in data) else ExitCode.FAILED)

    def _keep(self, evaluation: SetEvaluation, *, shown: bool, worst_first: bool) -> None:
        from clippy_cli.commands.evaluation_tables import print_result
        from clippy_cli.reporting.evaluation.examples import draw_examples

        if self._processes.first:
            with stage(REPORT):
                self._examples += draw_examples(evaluation)
            if shown:
                for result in evaluation.results:
                    print_result(result, worst_first=worst_first)
                    console.out.print()
        self._evaluations.append(evaluation.released())


@contextmanager
def _shown_progress(name: str) -> Iterator[Progress]:
    """A spinner until it is known how many images are left, then a bar; and a line where some were counted before."""
    from clippy_cli.evaluation.run import Progress

    with ExitStack() as stack, ExitStack() as preparation:
        texts = preparation.enter_context(console.counted_status(f"{name}: embedding texts", unit="texts"))
        count: Callable[[], None] = lambda: None  # noqa: E731

        def start(before: int, left: int) -> None:
            nonlocal count
            preparation.close()
            if before:
                console.err.print(f"{name}: {before} of {before + left} images were counted before", soft_wrap=True)
            count = stack.enter_context(console.progress(f"evaluating {name}", left, unit="images"))

        yield Progress(start, lambda: count(), texts)
