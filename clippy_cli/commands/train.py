"""``clippy train``: from a recipe to a model directory."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.errors import ExitCode

if TYPE_CHECKING:
    from clippy_cli.training.events import Event
    from clippy_cli.training.run import TrainingResult

PLAIN_SECONDS = 10.0  # between progress lines where stderr is no terminal
WIDE = 110  # columns of a terminal that has room for a bar beside the figures
SHOWN_PROBLEMS = 5


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped one, such as quickstart.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field, such as train.lr=3e-4. May be repeated."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint of the run folder.")
    ] = False,
    device: options.Device = "auto",
) -> None:
    """Train a model by a recipe, from image-caption pairs alone.

    The run folder, the recipe's output, gets the resolved recipe, a log, a loss plot, checkpoints, and at the end the
    model, which --model of the other commands takes. Ctrl-C saves a checkpoint; --resume goes on from it.

    \b
    Examples:
      clippy train quickstart
      clippy train recipes/flickr8k.yaml --set train.epochs=5 --set output=runs/short
      clippy train recipes/flickr8k.yaml --resume
    """
    from clippy_cli.recipe import load_recipe

    checked = load_recipe(recipe, overrides or [])

    from clippy_cli.training.run import train as run_training

    with _stop_on_signal() as should_stop, _Display() as display:
        result = run_training(checked, device=device, resume=resume, on_event=display.show, should_stop=should_stop)
    _print_broken(result)
    if not result.finished:
        command = ["clippy", "train", recipe, *(f"--set={text}" for text in overrides or []), "--resume"]
        command += [] if device == "auto" else [f"--device={device}"]
        console.err.print(Text(f"Stopped after step {result.step} of {result.total_steps}."))
        console.print_hint(f"Go on with: {shlex.join(command)}")
        raise typer.Exit(ExitCode.INTERRUPTED)
    _print_result(result)
    if checked.evaluate.scenes:
        _evaluate_scenes(result, checked.evaluate.scenes)


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM stop the run after the step at hand; a second one leaves at once."""
    asked = told = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def should_stop() -> bool:
        nonlocal told
        if asked and not told:  # not in the handler, which may have come in the middle of printing
            told = True
            console.err.print("Stopping; once more leaves at once.")
        return asked

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield should_stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Display:
    """Events as a live line on a terminal, as a plain line every ten seconds elsewhere."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        figures = TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True, overflow="ellipsis"))
        bar = (BarColumn(bar_width=20),) if console.err.width >= WIDE else ()
        self._bar = Progress(TextColumn("{task.description}"), *bar, MofNCompleteColumn(), figures, console=console.err)
        self._tasks: dict[str, Any] = {}
        self._last_plain = -PLAIN_SECONDS

    def __enter__(self) -> _Display:
        if console.err.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._bar.stop()

    def show(self, event: Event) -> None:
        from clippy_cli.training import events

        if isinstance(event, events.Started):
            self._print_start(event)
        elif isinstance(event, events.CacheProgress):
            self._advance(f"frozen tower: {event.what}", event.done, event.total, "")
        elif isinstance(event, events.StepReport):
            self._advance("step", event.step, event.total_steps, _metrics(event))
        elif isinstance(event, events.Validated):
            console.err.print(Text(f"step {event.step}: validation loss {event.loss:.4f}"))

    def _print_start(self, event: Any) -> None:
        console.err.print(Text(f"{event.data}; {event.steps_per_epoch} steps an epoch"), soft_wrap=True)
        for problem in event.problems[:SHOWN_PROBLEMS]:
            _warn(problem)
        if len(event.problems) > SHOWN_PROBLEMS:
            _warn(f"and {len(event.problems) - SHOWN_PROBLEMS} problems more")
        beginning = f"resuming after step {event.first_step} of" if event.first_step else "training for"
        learning = f"{event.trainable_parameters / 1e6:.1f} million parameters learn"
        console.err.print(Text(f"{beginning} {event.total_steps} steps on {event.device}; {learning}"))

    def _advance(self, what: str, done: int, total: int, text: str) -> None:
        if console.err.is_terminal:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total, text="")
            self._bar.update(self._tasks[what], completed=done, text=text)
        elif done == total or time.monotonic() - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = time.monotonic()
            console.err.print(Text(f"{what} {done}/{total} {text}"), soft_wrap=True)


def _metrics(event: Any) -> str:
    minutes, seconds = divmod(round(event.seconds_left), 60)
    broken = f" · {event.broken} broken" if event.broken else ""
    return (
        f"loss {event.loss:.3f} · {event.images_per_second:.0f} img/s · wait {event.wait_share:.0%} · "
        f"scale {event.logit_scale:.1f} · {minutes}:{seconds:02d} left{broken}"
    )


def _print_broken(result: TrainingResult) -> None:
    if result.broken:
        first = "; ".join(list(result.broken.values())[:SHOWN_PROBLEMS])
        _warn(f"{len(result.broken)} of {result.samples} samples are broken and were skipped: {first}")


def _warn(text: str) -> None:
    console.err.print(Text.assemble(("warning: ", "yellow"), text), soft_wrap=True)


def _print_result(result: TrainingResult) -> None:
    assert result.offset is not None
    console.out.print(Text.assemble(("model ", "bold"), str(result.folder.model)), soft_wrap=True)
    cosine = f"cos(mean pooled vector, mean patch vector) {result.offset.pooled_patch_cosine:+.2f}"
    console.out.print(Text(f"{result.step} steps; {cosine}", "dim"), soft_wrap=True)


def _evaluate_scenes(result: TrainingResult, count: int) -> None:
    """Segment held-out scenes, print the figures and keep them in the run folder."""
    from clippy_cli.commands.evaluation_tables import print_result
    from clippy_cli.data.benchmarks.scenes import SceneBenchmark
    from clippy_cli.evaluation.evaluate import evaluate_set
    from clippy_cli.evaluation.protocol import load_protocol
    from clippy_cli.evaluation.run import Progress
    from clippy_cli.reporting.products import save_json

    model = result.model
    with console.progress("evaluating scenes", count) as advance:
        evaluated = evaluate_set(
            model,
            SceneBenchmark(count, model.preprocess.resolution),
            load_protocol("clippy"),
            tasks=("segment",),
            progress=Progress(advance=advance),
        )
    (measured,) = evaluated.results
    save_json(result.folder.root / "evaluation.json", {"command": "train", "results": [measured.model_dump()]})
    print_result(measured)
