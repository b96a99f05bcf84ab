"""The command line as a whole: help stays light and complete, errors stay readable, logs stay off stdout."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clippy_cli.app import app
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.extras import DISTRIBUTION
from tests.fixtures.commands import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[1]
EXTRAS = set(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"])
SAMPLE = REPOSITORY / "clippy_cli" / "assets" / "samples" / "raccoon.jpg"
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "open_clip",
    "transformers",
    "sklearn",
    "scipy",
    "cv2",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "gradio",
)

PROBE = """
import sys
import clippy_cli
from typer.testing import CliRunner
from clippy_cli.app import app
for arguments in {arguments!r}:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
print(",".join(name for name in {heavy!r} if name in sys.modules))
"""


def help_of(name: str) -> str:
    result = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert result.exit_code == 0
    return result.output


def extras_named_in(command: Any) -> set[str]:
    """Extras in the text of a command's help and of its options, as they were written."""
    texts = [command.help or "", *(getattr(parameter, "help", None) or "" for parameter in command.params)]
    found = re.findall(rf"{DISTRIBUTION}\\*\[([\w,]+)\]", " ".join(texts))
    return {extra for names in found for extra in names.split(",")}


def test_the_walk_finds_commands_of_all_depths():
    assert {"segment", "data pack", "waterbirds", "waterbirds build"} <= set(COMMANDS)
    assert "data" not in COMMANDS  # it does nothing by itself


def test_help_of_every_command_loads_nothing_heavy():
    arguments = [["--help"], ["--version"], *([*command.split(), "--help"] for command in COMMANDS)]
    probe = PROBE.format(arguments=arguments, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command):
    shown = help_of(command)
    assert re.search(rf"Examples:\s+clippy {command}\b", shown)


@pytest.mark.parametrize("command", [name for name, command in COMMANDS.items() if extras_named_in(command)])
def test_help_shows_the_name_of_an_extra_in_its_brackets(command):
    shown = help_of(command)
    for extra in extras_named_in(COMMANDS[command]):
        assert f"{DISTRIBUTION}[{extra}]" in shown


def test_help_names_extras_that_exist():
    named = set().union(*map(extras_named_in, COMMANDS.values()))
    assert {"crf", "demo", "onnx"} <= named <= EXTRAS


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (ClippyError("It broke.", "Mend it.", 7), 7, "Mend it."),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "Interrupted"),
    ],
)
def test_expected_failures_end_in_a_message_and_a_code(monkeypatch, raised, code, says):
    def fail(*_, **__):
        raise raised

    monkeypatch.setattr("clippy_cli.model.store.load_model_directory", fail)
    result = CliRunner().invoke(app, ["segment", __file__, "--labels", "dog"])
    assert result.exit_code == code
    assert says in result.output and "Traceback" not in result.output


@pytest.mark.parametrize(
    ("flags", "variable"), [(["--verbose"], ""), (["-v"], ""), (["-vv"], "warning"), ([], "info"), ([], "")]
)
def test_verbose_says_on_stderr_which_model_and_where(restored_logger, flags, variable):
    command = [*flags, "classify", str(SAMPLE), "--labels", "raccoon,dog", "--device", "cpu", "--json"]
    result = CliRunner().invoke(app, command, env={"CLIPPY_LOG": variable})
    assert result.exit_code == 0
    assert json.loads(result.stdout)["command"] == "classify"
    said = [line for line in result.stderr.splitlines() if line.startswith("info: ")]
    if flags or variable:
        assert any("clippy-ti" in line and "on cpu" in line for line in said)
        assert "info: images: 1" in said
    else:
        assert not said


def test_a_bad_log_level_is_an_error(restored_logger):
    result = CliRunner().invoke(app, ["models"], env={"CLIPPY_LOG": "loud"})
    assert result.exit_code == ExitCode.USAGE
    assert "CLIPPY_LOG" in result.stderr and "debug, info, warning" in result.stderr
