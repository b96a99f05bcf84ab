"""``clippy train``: from a recipe to a model directory."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.commands.train_display import SHOWN_PROBLEMS, TrainDisplay, best_text
from clippy_cli.errors import ClippyError, ExitCode

if TYPE_CHECKING:
    from clippy_cli.evaluation.in_training import PeriodicEvaluation
    from clippy_cli.processes import Processes
    from clippy_cli.recipe.schema import Recipe
    from clippy_cli.training.events import Stop
    from clippy_cli.training.run import TrainingResult

SAME_SIGNAL_SECONDS = 2.0  # a launcher passes on the Ctrl-C or the notice that the terminal or SLURM gave to all
RENDEZVOUS_PORT = 29400


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
    inexact: Annotated[
        bool,
        typer.Option(
            "--inexact",
            help="Resume although the number of processes, the chunk size or compilation changed: samples and draws "
            "stay, rounding and dropout differ. Or although the data changed, which is named: where samples came or "
            "went, all are drawn anew.",
        ),
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="The same recipe, shrunk to seconds on generated data.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print what the run would cost, and leave.")] = False,
    strict: options.Strict = False,
    device: options.Device = "auto",
) -> None:
    """Train a model by a recipe, from image-caption pairs alone.

    The run folder, the recipe's output, gets the resolved recipe, a log, a loss plot, checkpoints, and at the end the
    model, which --model of the other commands takes. Ctrl-C saves a checkpoint, and so does SIGTERM or SIGUSR1, which
    announce that the machine is needed elsewhere; --resume goes on from it. Several processes share each batch when
    launched by torchrun --nproc-per-node N -m clippy_cli train ... The exit code is 3 where the run is finished and
    some of the data that the recipe names could not be used.

    \b
    Examples:
      clippy train quickstart
      clippy train recipes/cc12m.yaml --smoke
      clippy train recipes/cc12m.yaml --plan
      clippy train recipes/flickr8k.yaml --set train.epochs=5 --set output=runs/short
      clippy train recipes/flickr8k.yaml --resume
    """
    from clippy_cli.recipe.loading import load_recipe

    if plan:
        from clippy_cli.recipe.data import unset_variables_allowed

        with unset_variables_allowed():
            _print_plan(load_recipe(recipe, overrides or [], smoke=smoke))
        return
    from clippy_cli.processes import launched_processes

    again = ["train", recipe, *(f"--set={text}" for text in overrides or []), *(["--smoke"] if smoke else [])]
    again += ["--resume"] if device == "auto" else ["--resume", f"--device={device}"]
    with launched_processes(command="train", tensors=_tensor_backends(device)) as processes, _naming(processes):
        if not processes.first:
            console.be_silent()
        from clippy_cli.evaluation.in_training import periodic_evaluation
        from clippy_cli.training.run import train as run_training

        checked = load_recipe(recipe, overrides or [], smoke=smoke)
        display = TrainDisplay()
        with console.status("looking for data sets"):
            evaluation = periodic_evaluation(checked, processes, Path(checked.output), display.evaluating)
        with display, _stop_on_signal() as should_stop:
            result = run_training(
                checked,
                device=processes.device(device),
                resume=resume,
                processes=processes,
                inexact=inexact,
                strict=strict,
                on_event=display.show,
                should_stop=should_stop,
                evaluate=evaluation,
            )
        if processes.first:
            if tuple(result.notices) != display.printed:  # of shards that were fetched meanwhile
                console.print_notices(result.notices)
            _print_broken(result)
            _save_notices(result)
            if result.finished:
                _print_result(result, evaluation)
            else:
                console.err.print(Text(f"Stopped after step {result.step} of {result.total_steps}."))
                console.print_hint(f"Go on with{resume_line(again, os.environ)}")
        processes.gather(None)  # a launcher would end the first process with the others
    if not result.finished:
        raise typer.Exit(_exit_code(result.stopped))
    if result.notices.incomplete or result.broken:
        raise typer.Exit(ExitCode.PARTIAL)


def _print_plan(recipe: Recipe) -> None:
    from rich.table import Table

    with console.status("counting"):
        from clippy_cli.training.cost import cost_table, estimate_cost

        rows = cost_table(estimate_cost(recipe))
    table = Table("", "", box=None, show_header=False, pad_edge=False)
    for name, value in rows:
        table.add_row(Text(name, "bold"), Text(value))
    console.out.print(table)


def resume_line(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """``: clippy train ...``, or the launch of as many processes on as many machines as ``environment`` speaks of."""
    size, local = (environment.get(name, "1") for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if size == "1":
        return f": {shlex.join(['clippy', *arguments])}"
    if "LOCAL_WORLD_SIZE" not in environment:  # launched by something else, such as srun
        return f", launched as before: {shlex.join(['python', '-m', 'clippy_cli', *arguments])}"
    launch, where = ["torchrun", "--nproc-per-node", local], ""
    if (machines := int(size) // int(local)) > 1:
        endpoint = f"{environment.get('MASTER_ADDR', 'HOST')}:{RENDEZVOUS_PORT}"
        launch += ["--nnodes", str(machines), "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]
        where = f", on each of the {machines} machines"
    return f"{where}: {shlex.join([*launch, '-m', 'clippy_cli', *arguments])}"


def _tensor_backends(device: str) -> str:
    from clippy_cli.model.device import resolve_device

    return "cpu:gloo,cuda:nccl" if resolve_device(device).type == "cuda" else "gloo"


@contextmanager
def _naming(processes: Processes) -> Iterator[None]:
    """Where there are several processes, let an error say which one met it."""
    from clippy_cli.processes import OtherProcessFailed

    try:
        yield
    except OtherProcessFailed:
        raise
    except ClippyError as error:
        if processes.size > 1:
            error.message = f"process {processes.rank + 1} of {processes.size}: {error.message}"
        raise


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], Stop]]:
    """Ctrl-C interrupts the run after its step, SIGTERM and SIGUSR1 preempt it; a second one quits immediately."""
    from clippy_cli.training.events import Stop

    reasons = {signal.SIGINT: Stop.INTERRUPTED, signal.SIGTERM: Stop.PREEMPTED}
    if hasattr(signal, "SIGUSR1"):
        reasons[signal.SIGUSR1] = Stop.PREEMPTED
    requested, requested_at, announced = Stop.GO_ON, 0.0, False

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal requested, requested_at
        if requested == Stop.GO_ON:
            requested_at = time.monotonic()
        elif time.monotonic() - requested_at > SAME_SIGNAL_SECONDS:
            raise KeyboardInterrupt
        requested = max(requested, reasons[signal.Signals(number)])

    def should_stop() -> Stop:
        nonlocal announced
        if (
            requested != Stop.GO_ON and not announced
        ):  # not in the handler, which may have come in the middle of printing
            announced = True
            console.err.print("Stopping after this step; press Ctrl-C again to quit immediately.")
        return requested

    before = {number: signal.signal(number, request) for number in reasons}
    try:
        yield should_stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_code(stopped: Stop) -> ExitCode:
    from clippy_cli.training.events import Stop

    return ExitCode.PREEMPTED if stopped == Stop.PREEMPTED else ExitCode.INTERRUPTED


def _print_broken(result: TrainingResult) -> None:
    if result.broken:
        first = "; ".join(list(result.broken.values())[:SHOWN_PROBLEMS])
        console.print_warning(f"{len(result.broken)} of {result.samples} samples are broken and were skipped: {first}")


def _save_notices(result: TrainingResult) -> None:
    """``notices.json`` in the run folder, where anything was not used as it stands; in place of an earlier one."""
    from clippy_cli.reporting.products import save_json

    path = result.folder.root / "notices.json"
    if len(result.notices) or result.broken:
        broken = {str(number): why for number, why in sorted(result.broken.items())}
        save_json(path, {"command": "train", "notices": result.notices.records(), "broken": broken})
    else:
        path.unlink(missing_ok=True)


def _print_result(result: TrainingResult, evaluation: PeriodicEvaluation | None) -> None:
    """Where the model is, how good it is, and ``evaluation.json`` in the run folder."""
    assert result.offset is not None
    console.out.print(Text.assemble(("model ", "bold"), str(result.folder.model)), soft_wrap=True)
    if result.best is not None:
        best = f"{result.best.path}, after step {result.best.step}: {best_text(result.best)}"
        console.out.print(Text.assemble(("best  ", "bold"), best), soft_wrap=True)
    cosine = f"cos(mean pooled vector, mean patch vector) {result.offset.pooled_patch_cosine:+.2f}"
    console.out.print(Text(f"{result.step} steps; {cosine}", "dim"), soft_wrap=True)
    if evaluation is None or evaluation.step != result.step:
        return
    from clippy_cli.commands.evaluation_tables import print_result
    from clippy_cli.reporting.products import save_json

    measured = [entry.model_dump() for entry in evaluation.results]
    document = {"command": "train", "results": measured, "notices": result.notices.records()}
    save_json(result.folder.root / "evaluation.json", document)
    for entry in evaluation.results:
        print_result(entry)
    if len(evaluation.results) > 1:
        _print_figures(evaluation.figures)


def _print_figures(figures: Mapping[str, float]) -> None:
    """All sets below each other."""
    from rich import box
    from rich.table import Table

    from clippy_cli.reporting.evaluation.figures import figure, metric_name

    table = Table("set", "metric", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure", justify="right")
    for name, value in figures.items():
        of, _, metric = name.rpartition(".")
        table.add_row(Text(of), metric_name(metric), figure(metric, value))
    console.out.print(table)
