"""``clippy export`` from the command line, with models on disk."""

import json
import warnings

import pytest
from typer.testing import CliRunner

from clippy_cli.app import app
from clippy_cli.model.store import save_model
from tests.fixtures.commands import COMMANDS
from tests.fixtures.export_models import tiny_model

FLAGS = {"onnx": "--opset --overwrite --json", "open-clip": "--overwrite --json"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run ``clippy export ...`` in an empty folder, where ``model`` is one that open_clip can express."""
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model(pooling="cls"), tmp_path / "model")

    def export(*arguments):
        return CliRunner().invoke(app, ["export", *arguments])

    return export


def test_open_clip_prints_the_comparison_and_how_to_load(run, tmp_path):
    result = run("open-clip", "model", "out")
    assert result.exit_code == 0, result.output
    assert "1x3x32x32" in result.stdout and "local-dir:out" in result.stdout
    assert (tmp_path / "out" / "open_clip_model.safetensors").is_file()
    again = run("open-clip", "model", "out")
    assert again.exit_code == 1 and "not empty" in again.stderr


@pytest.mark.slow
def test_onnx_as_json_and_nothing_else_on_either_stream(run, tmp_path, capfd):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with warnings.catch_warnings(record=True) as seen:
        result = run("onnx", "model", "out", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["folder"] == "out" and set(document["files"]) == {"config.json", "image.onnx", "text.onnx"}
    assert max(found["largest"] for found in document["differences"]) <= document["limit"]
    assert (result.stderr, capfd.readouterr(), seen) == ("", ("", ""), [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


def test_models_that_are_not_clippys_own_are_refused(clippy):
    result = clippy("export", "onnx", "colours", "out")
    assert result.code == 1 and "own models" in result.stderr


@pytest.mark.parametrize("command", FLAGS)
def test_the_flags_are_these(command):
    params = COMMANDS[f"export {command}"].params
    flags = {flag for param in params for flag in (*param.opts, *param.secondary_opts) if flag.startswith("--")}
    assert flags - {"--help"} == set(FLAGS[command].split())
