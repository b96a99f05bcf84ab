"""The command line as a whole: help stays light, errors stay readable."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from clippy_cli.app import app
from clippy_cli.errors import ClippyError, ExitCode

COMMANDS = (
    "segment",
    "group",
    "classify",
    "train",
    "evaluate",
    "demo",
    "models",
    "import",
    "data pack",
    "data check",
    "export onnx",
    "export open-clip",
)
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
from typer.testing import CliRunner
from clippy_cli.app import app
for arguments in {arguments!r}:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
print(",".join(name for name in {heavy!r} if name in sys.modules))
"""


def test_help_of_every_command_loads_nothing_heavy():
    arguments = [["--help"], ["--version"], *([*command.split(), "--help"] for command in COMMANDS)]
    probe = PROBE.format(arguments=arguments, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command):
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert f"clippy {command} " in result.output


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
