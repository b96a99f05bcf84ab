"""What a training run shows while it goes on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rich.text import Text

from clippy_cli import console

if TYPE_CHECKING:
    from clippy_cli.evaluation.run import Progress
    from clippy_cli.notices import Notice
    from clippy_cli.training.events import BestChanged, Event, Started, StepReport

PLAIN_SECONDS = 10.0  # between progress lines where stderr is no terminal
PLAIN_COLUMNS = 110
BAR_COLUMNS = 20
WIDE = 130  # columns of a terminal that has room for a bar beside the figures
SHOWN_PROBLEMS = 5


class TrainDisplay:
    """Shows events, and the evaluations between them. Silent where the console is."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        figures = TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True, overflow="ellipsis"))
        bar = (BarColumn(bar_width=BAR_COLUMNS),) if console.err.width >= WIDE else ()
        self._bar = Progress(TextColumn("{task.description}"), *bar, MofNCompleteColumn(), figures, console=console.err)
        self._live = console.err.is_terminal and not console.err.quiet
        self._tasks: dict[str, Any] = {}
        self.printed: tuple[Notice, ...] = ()
        self._last_plain = -PLAIN_SECONDS

    def __enter__(self) -> TrainDisplay:
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        if self._live:
            self._bar.stop()

    def show(self, event: Event) -> None:
        """Print or draw an event; saved checkpoints are not worth a line."""
        from clippy_cli.training import events

        if isinstance(event, events.Started):
            self._print_start(event)
        elif isinstance(event, events.CacheProgress):
            self._advance(f"frozen tower: {event.what}", event.done, event.total, "")
        elif isinstance(event, events.CaptionsRead):
            self._advance("captions of samples", event.done, event.total, "")
        elif isinstance(event, events.OffsetProgress):
            self._advance("mean patch: images", event.done, event.total, "", ends=False)
        elif isinstance(event, events.StepReport):
            self._advance("step", event.step, event.total_steps, step_line(event, self._columns(event.total_steps)))
        elif isinstance(event, events.Validated):
            _print(f"step {event.step}: validation loss {event.loss:.4f}")
        elif isinstance(event, events.SetsEvaluated):
            figures = " · ".join(figure_text(name, value) for name, value in event.figures.items())
            _print(f"step {event.step}: {figures or 'no figure of the evaluation is defined'}")
        elif isinstance(event, events.BestChanged):
            _print(f"step {event.step}: best so far by {best_text(event)}")
        elif isinstance(event, events.CheckpointFailed):
            console.print_warning(f"step {event.step}: no checkpoint, training goes on: {event.reason}")

    @contextmanager
    def evaluating(self, name: str) -> Iterator[Progress]:
        """Show how far the evaluation on a set is, on a line below the steps, which vanishes at the end."""
        from clippy_cli.evaluation.run import Progress

        if not self._live:
            with _plain_progress(name) as progress:
                yield progress
            return
        task = self._bar.add_task(f"evaluating {name}", total=None, text="")
        try:
            yield Progress(
                lambda before, left: self._bar.update(task, total=before + left, completed=before),
                lambda: self._bar.advance(task),
            )
        finally:
            self._bar.remove_task(task)

    def _print_start(self, event: Started) -> None:
        _print(f"{event.data}; {event.steps_per_epoch} steps an epoch")
        console.print_notices(event.notices)
        self.printed = event.notices
        beginning = f"resuming after step {event.first_step} of" if event.first_step else "training for"
        where = f"{event.processes} processes, the first on {event.device}" if event.processes > 1 else event.device
        learning = f"{event.trainable_parameters / 1e6:.1f} million parameters learn"
        _print(f"{beginning} {event.total_steps} steps on {where}; {learning}")

    def _columns(self, total: int) -> int:
        """How wide the figures of a step can be."""
        counter = len(f"step {total}/{total} ")
        if not self._live:
            return PLAIN_COLUMNS - counter
        return console.err.width - counter - (BAR_COLUMNS + 1 if console.err.width >= WIDE else 0)

    def _advance(self, what: str, done: int, total: int, text: str, *, ends: bool = True) -> None:
        """``ends`` says whether the last count is worth a line of its own."""
        if self._live:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total, text="")
            self._bar.update(self._tasks[what], completed=done, text=text)
        elif (ends and done == total) or time.monotonic() - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = time.monotonic()
            _print(f"{what} {done}/{total} {text}")


def step_line(event: StepReport, columns: int) -> str:
    """The figures of a report in at most ``columns``, those that are needed least left out where it is narrow.

    ``acc`` is in per cent, image to caption / caption to image; ``MFU`` the share of the device's peak.
    """
    tokens, used = event.tokens_per_second, event.flop_utilisation
    rate = event.images_per_second
    shown = [  # text, and its place among those that stay
        (f"loss {event.loss:.3f}", 0),
        (f"acc {100 * event.image_accuracy:.0f}/{100 * event.text_accuracy:.0f} %", 3),
        (f"{rate:,.0f} img/s" if rate >= 10 else f"{rate:.1f} img/s", 2),
        ("" if tokens is None else f"{tokens / 1000:,.1f} ktok/s", 9),
        ("" if used is None else f"MFU {100 * used:.0f} %", 5),
        (f"wait {100 * event.wait_share:.0f} %", 6),
        (f"scale {event.logit_scale:.1f}", 8),
        (f"{event.memory_gb:.1f} GB", 7),
        (f"{duration(event.seconds_left)} left", 1),
        (f"{event.broken} broken" if event.broken else "", 4),
    ]
    shown = [part for part in shown if part[0]]
    while len(line := " · ".join(text for text, _ in shown)) > columns and len(shown) > 1:
        shown.remove(max(shown, key=lambda part: part[1]))
    return line


def duration(seconds: float) -> str:
    """``0:42``, ``2:05:00``, ``3 d 4 h``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def figure_text(name: str, value: float) -> str:
    """``voc20.miou`` and 0.281 -> ``voc20 mIoU 28.1 %``; a loss stays a number."""
    from clippy_cli.reporting.evaluation.figures import figure, metric_name

    of, _, metric = name.rpartition(".")
    return f"{of} {metric_name(metric)} {f'{value:.4f}' if metric == 'loss' else figure(metric, value)}"


def best_text(best: BestChanged) -> str:
    """The best figure so far as text."""
    return figure_text(best.figure, best.value)


def _print(text: str) -> None:
    console.err.print(Text(text), soft_wrap=True)


@contextmanager
def _plain_progress(name: str) -> Iterator[Progress]:
    """A line every ten seconds, from when it is known how many images there are."""
    from clippy_cli.evaluation.run import Progress

    with ExitStack() as stack:
        count: Any = lambda: None  # noqa: E731

        def start(before: int, left: int) -> None:
            nonlocal count
            count = stack.enter_context(console.progress(f"evaluating {name}", left, unit="images"))

        yield Progress(start, lambda: count())
