"""The Typer app: registers commands and turns expected failures into messages and exit codes."""

from __future__ import annotations

import logging
import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clippy_cli import __version__
from clippy_cli.commands.classify import classify
from clippy_cli.commands.compare import compare
from clippy_cli.commands.data_check import data_check
from clippy_cli.commands.data_pack import data_pack
from clippy_cli.commands.demo import demo
from clippy_cli.commands.embed import embed
from clippy_cli.commands.evaluate import evaluate
from clippy_cli.commands.export import onnx, open_clip
from clippy_cli.commands.group import group
from clippy_cli.commands.import_checkpoint import import_checkpoint
from clippy_cli.commands.models import models
from clippy_cli.commands.segment import segment
from clippy_cli.commands.sets import sets
from clippy_cli.commands.train import train
from clippy_cli.commands.waterbirds import waterbirds
from clippy_cli.commands.waterbirds_analyse import waterbirds_analyse
from clippy_cli.commands.waterbirds_build import waterbirds_build
from clippy_cli.console import clear_first_line, log_level, log_to_stderr, print_error
from clippy_cli.errors import ClippyError, ExitCode


class ClippyGroup(TyperGroup):
    """Errors a user can cause are printed as message and hint, never as a traceback."""

    def invoke(self, ctx: Any) -> Any:  # click's Context, which newer Typer carries inside itself
        try:
            return super().invoke(ctx)
        except ClippyError as error:
            print_error(error)
            ctx.exit(error.exit_code)
        except OSError as error:
            if error.filename is None:  # not about a file, such as a pipe that nobody reads any more
                raise
            logging.getLogger(__name__).debug("raised here", exc_info=True)
            print_error(ClippyError(f"{os.fsdecode(error.filename)}: {error.strerror or error}"))
            ctx.exit(ExitCode.FAILED)
        except KeyboardInterrupt:
            print_error(ClippyError("Interrupted."))
            ctx.exit(ExitCode.INTERRUPTED)
        finally:
            clear_first_line()  # typer prints wrong options by itself


app = typer.Typer(
    cls=ClippyGroup,
    name="clippy",
    help="Learn where things are from image-caption pairs alone, and put that to use.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"clippy {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            help="Log to stderr what is loaded, from where and on which device; -vv logs details. The environment "
            "variable CLIPPY_LOG=info or debug does the same.",
        ),
    ] = 0,
) -> None:
    log_to_stderr(log_level(verbose, os.environ))


for command in (segment, group, classify, embed, train, evaluate, sets, compare, demo):
    app.command()(command)

app.command()(models)
app.command("import")(import_checkpoint)

birds = typer.Typer(rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]})
birds.callback(invoke_without_command=True)(waterbirds)
birds.command("build")(waterbirds_build)
birds.command("analyse")(waterbirds_analyse)
app.add_typer(birds, name="waterbirds")

data = typer.Typer(
    help="Pack captioned images into tar shards, and check what is in them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
data.command("pack")(data_pack)
data.command("check")(data_check)
app.add_typer(data, name="data")

export = typer.Typer(
    help="Write models for other programs: ONNX, open_clip.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
export.command()(onnx)
export.command()(open_clip)
app.add_typer(export, name="export")
