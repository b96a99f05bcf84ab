"""What the command tests share: the colour model behind every ``--model``, a few pictures, one way to run."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from clippy_cli.app import app
from tests.fixtures.colour_model import ColourModel


@dataclass
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        return json.loads(self.stdout)


@pytest.fixture
def clippy(monkeypatch, tmp_path):
    """Run a command line in an empty folder, with :class:`ColourModel` for a model."""
    monkeypatch.setattr("clippy_cli.model.store.load_model_directory", lambda source, **options: ColourModel())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIPPY_CACHE", str(tmp_path / ".cache"))  # under the name of the model that is replaced

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def flag(tmp_path):
    """Make a picture, red on the left and blue on the right, of 64x48 pixels: 8x6 patches of the colour model."""

    def make(name="flag.png", left=(255, 0, 0), right=(0, 0, 255)):
        pixels = np.empty((48, 64, 3), np.uint8)
        pixels[:, :32], pixels[:, 32:] = left, right
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path.relative_to(tmp_path)

    return make
