"""The terminal: previews, progress, logs."""

import io
import json
import logging
import sys

import numpy as np
import pytest
from rich.console import Console

from clippy_cli import console
from clippy_cli.errors import ClippyError, ExitCode


def rendered(text, width=80):
    buffer = io.StringIO()
    Console(file=buffer, force_terminal=True, color_system="truecolor", width=width).print(text)
    return buffer.getvalue()


def test_a_preview_puts_two_pixels_into_a_cell():
    image = np.zeros((60, 40, 3), np.uint8)
    image[30:] = (10, 200, 30)
    lines = console.half_blocks(image).plain.splitlines()
    assert len(lines) == 15
    assert set(map(len, lines)) == {20}
    shown = rendered(console.half_blocks(image, lines=1))
    assert "38;2;0;0;0" in shown
    assert "48;2;10;200;30" in shown


@pytest.mark.parametrize("shape", [(10, 1000), (1000, 10), (1, 1)])
def test_a_preview_fits_whatever_the_shape(shape):
    lines = console.half_blocks(np.zeros((*shape, 3), np.uint8), width=60).plain.splitlines()
    assert 1 <= len(lines) <= 15
    assert 1 <= len(lines[0]) <= 60


def test_progress_off_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("clippy_cli.console.time.monotonic", lambda: next(clock))
    with console.progress("counting", 6) as advance:
        for _ in range(6):
            advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["counting: 3 of 6, 12 s left", "counting: 6 of 6, 0 s left"]
    with console.progress("reading", 6, unit="images") as advance:
        for _ in range(3):
            advance()
    assert capsys.readouterr().err.splitlines() == ["reading: 3 of 6, 0.2 images/s, 12 s left"]


@pytest.mark.parametrize(("seconds", "shows_bar"), [(9.0, False), (-1.0, True)])
def test_a_counted_status_becomes_a_bar_once_it_takes_long(monkeypatch, seconds, shows_bar):
    written = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=written, force_terminal=True, width=100))
    monkeypatch.setattr(console, "_BAR_SECONDS", seconds)
    with console.counted_status("embedding texts", unit="texts") as count:
        for done in (0, 512, 700):
            count(done, 700)
    assert "embedding texts" in written.getvalue()
    assert ("700/700" in written.getvalue()) == shows_bar


def test_a_counted_status_off_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("clippy_cli.console.time.monotonic", lambda: next(clock))
    with console.counted_status("embedding texts", unit="texts") as count:
        for done in (0, 512, 1024, 1536):
            count(done, 2000)
    assert capsys.readouterr().err.splitlines() == ["embedding texts: 1024 of 2000, 85.3 texts/s, 11 s left"]


def test_json_has_no_nan_and_is_not_wrapped(capsys):
    console.print_json({"text": "[bold] " + "long " * 50})
    assert "[bold] long" in capsys.readouterr().out.splitlines()[1]
    with pytest.raises(ValueError, match="JSON"):
        console.print_json({"value": float("nan")})


def test_log_records_go_to_stderr_once(capsys):
    console.log_to_stderr()
    console.log_to_stderr()
    logging.getLogger("clippy_cli.data").warning("a shard is short")
    assert capsys.readouterr().err == "warning: a shard is short\n"


@pytest.mark.parametrize(
    ("verbose", "variable", "level"),
    [
        (0, None, logging.WARNING),
        (0, "", logging.WARNING),
        (0, "Info", logging.INFO),
        (0, "debug", logging.DEBUG),
        (1, None, logging.INFO),
        (1, "debug", logging.INFO),
        (2, "warning", logging.DEBUG),
        (3, None, logging.DEBUG),
    ],
)
def test_the_flag_decides_what_is_logged_and_without_it_the_variable(verbose, variable, level):
    assert console.log_level(verbose, {} if variable is None else {"CLIPPY_LOG": variable}) == level


def test_a_level_that_is_none_is_refused():
    with pytest.raises(ClippyError, match="CLIPPY_LOG cannot be 'loud'") as raised:
        console.log_level(0, {"CLIPPY_LOG": "loud"})
    assert raised.value.exit_code == ExitCode.USAGE
    assert "debug, info, warning" in raised.value.hint


@pytest.mark.parametrize(("level", "shown"), [(logging.WARNING, 1), (logging.INFO, 2), (logging.DEBUG, 3)])
def test_each_level_shows_its_records_with_their_level(restored_logger, capsys, level, shown):
    console.log_to_stderr(level)
    logger = logging.getLogger("clippy_cli.room")
    logger.warning("one")
    logger.info("two [not markup]")
    logger.debug("three")
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["warning: one", "info: two [not markup]", "debug: three"][:shown]
    assert captured.out == ""


def test_what_an_encoding_cannot_hold_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    console.out.print("caf\udce9 \u72ac", highlight=False)
    console.print_json({"name": "caf\udce9 \u72ac \U0001f600\n"})
    line, _, document = raw.getvalue().decode("ascii").partition("\n")
    assert line == "caf\\xe9 \\u72ac"
    assert json.loads(document) == {"name": "caf\\xe9 \u72ac \U0001f600\n"}


def test_other_packages_warn_once_as_clippy_does(monkeypatch, capsys):
    root = logging.Logger("root")
    monkeypatch.setattr(
        logging, "getLogger", lambda name=None: root if name is None else logging.Logger.manager.getLogger(name)
    )
    monkeypatch.setattr(logging, "captureWarnings", lambda capture: None)
    environment = {"HF_HUB_VERBOSITY": "info"}
    console.adopt_libraries(environment)
    for _ in range(2):
        root.handle(logging.LogRecord("transformers", logging.WARNING, "", 0, "weights are new", None, None))
    root.handle(logging.LogRecord("py.warnings", logging.WARNING, "", 0, "deprecated", None, None))
    root.handle(logging.LogRecord("timm", logging.INFO, "", 0, "loading", None, None))
    assert capsys.readouterr().err == "warning: transformers: weights are new\n"
    assert environment["HF_HUB_VERBOSITY"] == "info" and environment["TRANSFORMERS_VERBOSITY"] == "error"
