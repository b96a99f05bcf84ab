"""The terminal: one console for results (stdout), one for everything else (stderr)."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import IO, TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.style import Style
from rich.text import Text

from clippy_cli.errors import ClippyError, ExitCode, encodable
from clippy_cli.files import json_text
from clippy_cli.notices import Notice, NoticeKind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.status import Status


class _Stream:
    """stdout or stderr as it is at each moment, where whatever its encoding cannot hold is escaped."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(sys, self._name), name)

    @property
    def rich_proxied_file(self) -> _Stream:
        """What rich writes to, so that it does not go round this class."""
        return self

    def write(self, text: str) -> int:
        clear_first_line()
        stream = getattr(sys, self._name)
        stream = getattr(stream, "rich_proxied_file", stream)  # what rich puts in its place while a bar is shown
        encoding = getattr(stream, "encoding", None) or "utf-8"
        written: int = stream.write(encodable(text).encode(encoding, "backslashreplace").decode(encoding))
        return written


_first_line = False  # whether a terminal shows the line of say_at_once, with the cursor at its start


def say_at_once(text: str) -> None:
    """Write a line to stderr before anything slow; a terminal sees it until the next line is written."""
    global _first_line
    if not err.quiet:
        _first_line = sys.stderr.isatty() and not err.is_dumb_terminal
        sys.stderr.write(f"{text} ...{chr(13) if _first_line else chr(10)}")
        sys.stderr.flush()


def clear_first_line() -> None:
    """Take the line of :func:`say_at_once` from a terminal."""
    global _first_line
    if _first_line:
        _first_line = False
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


out = Console(file=cast("IO[str]", _Stream("stdout")), highlight=False)
err = Console(file=cast("IO[str]", _Stream("stderr")), highlight=False, stderr=True)

LOG_VARIABLE = "CLIPPY_LOG"
PREVIEW_LINES = 15
_LOG_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
_LOG_STYLES = {logging.DEBUG: "dim", logging.INFO: "cyan", logging.WARNING: "yellow"}
_LOG_SECONDS = 10.0
_BAR_SECONDS = 2.0
_UPPER_HALF = "▀"


def print_error(error: ClippyError) -> None:
    """Write ``error: ...`` and, where there is one, ``hint: ...`` to stderr, even after :func:`be_silent`."""
    err.quiet = False
    err.print(Text.assemble(("error: ", "bold red"), error.message), soft_wrap=True)
    if error.hint is not None:
        print_hint(error.hint)


def print_hint(text: str) -> None:
    """Write ``hint: ...`` to stderr."""
    err.print(Text.assemble(("hint: ", "cyan"), text), soft_wrap=True)


def print_warning(text: str) -> None:
    """Write ``warning: ...`` to stderr."""
    err.print(Text.assemble(("warning: ", "yellow"), text), soft_wrap=True)


def print_notices(notices: Iterable[Notice]) -> None:
    """Write a line for each to stderr: a warning, or a dim note for what was merely ignored."""
    for notice in notices:
        if notice.kind is NoticeKind.IGNORED:
            err.print(Text(str(notice), "dim"), soft_wrap=True)
        else:
            print_warning(str(notice))


def print_json(document: object) -> None:
    """Write one JSON document to stdout, unstyled and unwrapped; NaN is refused, since JSON has none."""
    out.out(json_text(document, ascii_only=not out.encoding.startswith("utf")), highlight=False)


class _LogHandler(logging.Handler):
    """Log records as lines such as ``warning: ...`` on stderr, above a running progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        style = _LOG_STYLES.get(record.levelno, "bold red")
        err.print(Text.assemble((f"{record.levelname.lower()}: ", style), record.getMessage()), soft_wrap=True)


class _LibraryHandler(logging.Handler):
    """Warnings of other packages, each once, as clippy's own lines; Python's warnings only with --verbose."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        quiet = record.name == "py.warnings" and logging.getLogger("clippy_cli").getEffectiveLevel() > logging.INFO
        if not quiet and text not in self._shown:
            self._shown.add(text)
            print_warning(f"{record.name}: {text.strip()}")


def adopt_libraries(environment: MutableMapping[str, str]) -> None:
    """Show what other packages warn of through this console; for a process that is the ``clippy`` command.

    Pillow's messages are left out, since clippy itself says what is wrong with an image.
    """
    for variable in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        environment.setdefault(variable, "error")
    logging.captureWarnings(True)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    logging.getLogger().addHandler(_LibraryHandler())


def log_level(verbose: int, environment: Mapping[str, str]) -> int:
    """The level of :mod:`logging` for the number of times that ``--verbose`` was given: none, info, debug.

    Without ``--verbose`` the variable CLIPPY_LOG decides (debug, info or warning), and else it is warning. ClippyError
    where the variable holds anything else.
    """
    if verbose:
        return logging.INFO if verbose == 1 else logging.DEBUG
    name = environment.get(LOG_VARIABLE, "").strip().lower() or "warning"
    if name not in _LOG_LEVELS:
        raise ClippyError(
            f"The environment variable {LOG_VARIABLE} cannot be {name!r}.",
            f"Set it to {', '.join(_LOG_LEVELS)}, or unset it.",
            exit_code=ExitCode.USAGE,
        )
    return _LOG_LEVELS[name]


def log_to_stderr(level: int = logging.WARNING) -> None:
    """Show the package's log records from ``level`` upwards on stderr; calling it again changes only the level."""
    logger = logging.getLogger("clippy_cli")
    logger.setLevel(level)
    if not any(isinstance(handler, _LogHandler) for handler in logger.handlers):
        logger.addHandler(_LogHandler())
        logger.propagate = False


def status(text: str) -> Status | nullcontext[None]:
    """A spinner on stderr while a block runs; nothing where stderr is no terminal."""
    return err.status(text) if err.is_terminal else nullcontext()


@contextmanager
def progress(description: str, total: int, *, unit: str | None = None) -> Iterator[Callable[[], None]]:
    """Give a function that counts one item done.

    A terminal sees a bar that vanishes at the end; elsewhere a plain line is written every ten seconds. With ``unit``,
    such as ``images``, both say how many come in a second. One item alone gets neither.
    """
    if total < 2:
        yield lambda: None
    elif err.is_terminal:
        with _bar(unit) as bar:
            task = bar.add_task(description, total=total)
            yield lambda: bar.advance(task)
    else:
        line, done = _line_counter(description, total, unit), 0

        def advance() -> None:
            nonlocal done
            done += 1
            line(done)

        yield advance


@contextmanager
def counted_status(description: str, *, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A spinner, and a function of what is done and of all, whose calls turn it into a bar once two seconds are over.

    Where stderr is no terminal, a plain line is written every ten seconds instead.
    """
    begun, task = time.monotonic(), None
    with ExitStack() as stack, ExitStack() as spinner:
        spinner.enter_context(status(description))
        bar: Any = None
        line: Callable[[int], None] | None = None

        def count(done: int, total: int) -> None:
            nonlocal bar, task, line
            if not err.is_terminal:
                line = line or _line_counter(description, total, unit)
                line(done)
            elif bar is not None:
                bar.update(task, completed=done)
            elif time.monotonic() - begun > _BAR_SECONDS:
                spinner.close()
                bar = stack.enter_context(_bar(unit))
                task = bar.add_task(description, total=total, completed=done)

        yield count


def be_silent() -> None:
    """Print nothing but errors from here on, as the processes of a launch do that are not its first."""
    out.quiet = err.quiet = True


def swatch(rgb: tuple[int, int, int]) -> Text:
    """Two cells filled with one colour."""
    return Text("  ", Style(bgcolor=_hex(rgb)))


def half_blocks(image: NDArray[np.uint8], *, lines: int = PREVIEW_LINES, width: int = 80) -> Text:
    """(H,W,3) uint8 -> a picture of at most ``lines`` x ``width`` cells, two pixels a cell, one above the other."""
    import numpy as np
    from PIL import Image

    height_in, width_in = image.shape[:2]
    rows, columns = 2 * lines, max(1, round(2 * lines * width_in / height_in))
    if columns > width:
        rows, columns = max(2, 2 * round(width * height_in / width_in / 2)), width
    small = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX))
    text = Text(no_wrap=True, end="")
    for row in range(0, rows, 2):
        for upper, lower in zip(small[row], small[row + 1], strict=True):
            text.append(_UPPER_HALF, Style(color=_hex(upper), bgcolor=_hex(lower)))
        text.append("\n")
    return text


def _hex(rgb: Any) -> str:
    red, green, blue = (int(value) for value in rgb)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _bar(unit: str | None) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f} {unit}/s")

    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    columns += [Rate()] if unit else []
    return Progress(*columns, TimeRemainingColumn(), console=err, transient=True, redirect_stdout=False)


def _line_counter(description: str, total: int, unit: str | None) -> Callable[[int], None]:
    begun = last = time.monotonic()

    def count(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LOG_SECONDS and done:
            last = now
            rate = f", {done / (now - begun):.1f} {unit}/s" if unit else ""
            left = round((total - done) * (now - begun) / done)
            err.print(f"{description}: {done} of {total}{rate}, {left} s left", soft_wrap=True)

    return count
