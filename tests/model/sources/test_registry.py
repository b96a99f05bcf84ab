"""Sources of other packages, found by their entry points: tiny distributions on a path of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clippy_cli.errors import ClippyError
from clippy_cli.model.sources.registry import find_source, source, source_names

PLUGIN = '''
from clippy_cli.model.sources.registry import ALL_TASKS, Listed, source


class Gray:
    """One embedding for everything."""

    name, reads_texts = "gray", True

    def __init__(self, device):
        from clippy_cli.model.base import InferenceDefaults, Preprocess

        self.device = device
        self.preprocess = Preprocess((0.5,) * 3, (0.5,) * 3, 16, 32)
        self.defaults = InferenceDefaults(32, "none", 1.0)

    def embed_images(self, images):
        return images.new_ones(len(images), 1)

    def embed_patches(self, images):
        return images.new_ones(len(images), images.shape[-2] // 16, images.shape[-1] // 16, 1)

    def embed_texts(self, texts):
        import torch

        return torch.ones(len(texts), 1)

    def score_images(self, images, texts):
        return self.embed_images(images) @ texts.T


@source("tiny")
class TinySource:
    takes_dense = False

    def check(self, name, *, texts):
        pass

    def load(self, name, device):
        return Gray(device)

    def examples(self, *, everything):
        yield Listed("tiny:gray", "tiny", ALL_TASKS, "none", True)
'''


@pytest.fixture
def run(tmp_path):
    """Run Python where two packages are installed: one with a source that works, one whose source does not import."""
    for package, prefix, code in (
        ("tiny_clips", "tiny", PLUGIN),
        ("broken_clips", "broken", "import absent_library\n"),
    ):
        (tmp_path / f"{package}.py").write_text(code, encoding="utf-8")
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        name = package.replace("_", "-")
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        (folder / "entry_points.txt").write_text(f"[clippy_cli.sources]\n{prefix} = {package}\n", encoding="utf-8")
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]

    def start(code):
        return subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True, text=True, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[3]), *paths])},
        )  # fmt: skip

    return start


def test_clippy_models_lists_an_installed_source_and_warns_of_a_broken_one(run):
    done = run(
        "import sys; sys.argv = ['clippy', 'models', '--json']\n"
        "from clippy_cli.__main__ import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr
    listed = {entry["source"]: entry for entry in json.loads(done.stdout)["models"]}
    assert listed["tiny:gray"]["kind"] == "tiny" and listed["clippy-ti"]["at_hand"]
    said = " ".join(done.stderr.split())
    assert "broken: of the package broken-clips cannot be imported" in said and "absent_library" in said


def test_a_model_of_an_installed_source_is_loaded_and_a_broken_one_named_only_when_asked(run):
    done = run(
        "import sys, torch\n"
        "from clippy_cli.errors import ClippyError\n"
        "from clippy_cli.model.base import VisionLanguageModel\n"
        "from clippy_cli.model.sources.loading import check_source, load_model, split_source\n"
        "check_source('tiny:gray', texts=True)\n"
        "model = load_model('tiny:gray', device='cpu')\n"
        "assert isinstance(model, VisionLanguageModel)\n"
        "assert model.embed_patches(torch.zeros(1, 3, 32, 48)).shape == (1, 2, 3, 1)\n"
        "assert split_source('C:/models/a') == ('clippy', 'C:/models/a')\n"
        "assert 'broken_clips' not in sys.modules\n"
        "for wrong in (lambda: load_model('broken:x'), lambda: load_model('tiny:gray', dense='sclip')):\n"
        "    try: wrong()\n"
        "    except ClippyError as error: print(error)\n"
    )
    assert done.returncode == 0, done.stderr
    assert "package broken-clips cannot be imported" in done.stdout
    assert "--dense sclip cannot be had of tiny:gray" in done.stdout


def test_a_prefix_has_one_source():
    assert source_names()[:4] == ("clippy", "open_clip", "hf", "timm")
    assert find_source("timm") is find_source("timm")
    with pytest.raises(ClippyError, match="Two sources of models are called 'timm'"):
        source("timm")(type("Other", (), {}))
