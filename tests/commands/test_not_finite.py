"""A model whose weights load and whose answers overflow: no command passes NaN on."""

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import clippy_cli
from clippy_cli.app import app
from clippy_cli.errors import ClippyError
from clippy_cli.model.store import save_model
from tests.fixtures.data import noise
from tests.fixtures.export_models import tiny_model


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overflow")
    model = tiny_model()
    with torch.no_grad():
        model.image.projection.get_parameter("weight").mul_(1e38)  # finite, as each is checked when they are loaded
    save_model(model, folder / "model")
    Image.fromarray(noise(32, 32)).save(folder / "a.png")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment", "a.png", "--labels", "dog,grass"],
        ["group", "a.png"],
        ["classify", "a.png", "--labels", "dog,grass"],
        ["evaluate", "scenes", "--limit", "2"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_stop_with_an_error(overflowing, arguments, tmp_path):
    given = [str(overflowing / "a.png") if argument == "a.png" else argument for argument in arguments]
    out = [] if "classify" in arguments else ["--out", str(tmp_path / "out")]
    outcome = CliRunner().invoke(app, [*given, "--model", str(overflowing / "model"), "--device", "cpu", *out])
    message = outcome.output + str(outcome.exception)
    assert outcome.exit_code not in (0, 3), message
    assert "NaN or inf" in message
    assert not list(tmp_path.rglob("*.json"))


def test_the_api_raises(overflowing):
    clip = clippy_cli.load(str(overflowing / "model"), device="cpu")
    with pytest.raises(ClippyError, match="NaN or inf"):
        clip.group(overflowing / "a.png")
    with pytest.raises(ClippyError, match="NaN or inf"):
        clip.segment(overflowing / "a.png", ["dog", "grass"])
