"""ONNX graphs against the model itself, at sizes and batches that the export never saw."""

import json
import sys

import numpy as np
import pytest
import torch

from clippy_cli.data.prompts import resolve_templates
from clippy_cli.errors import ClippyError
from clippy_cli.export.onnx_folder import LIMIT, export_onnx
from clippy_cli.extras import install_command
from clippy_cli.model.build import build_model
from clippy_cli.model.registry import load_architecture
from tests.fixtures.export_models import tiny_model

runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def assert_same(model, folder, sizes):
    session = runtime.InferenceSession(folder / "image.onnx", providers=["CPUExecutionProvider"])
    for batch, height, width in sizes:
        photos = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
        patches, pooled = session.run(["patches", "pooled"], {"pixels": (photos.numpy() / 255).astype(np.float32)})
        given = model.preprocess.normalize(photos)
        np.testing.assert_allclose(patches, model.embed_patches(given).numpy(), atol=1e-5)
        np.testing.assert_allclose(pooled, model.embed_images(given).numpy(), atol=1e-5)
    session = runtime.InferenceSession(folder / "text.onnx", providers=["CPUExecutionProvider"])
    texts = ["grass", "a photo of two brown dogs", "a dog"]
    for chosen in (texts[:1], texts):
        found = session.run(None, {"token_ids": model.text.tokenize(chosen).numpy()})
        np.testing.assert_allclose(found[0], model.embed_texts(chosen).numpy(), atol=1e-5)
        np.testing.assert_allclose(found[-1], model.embed_patch_texts(chosen).numpy(), atol=1e-5)


@pytest.mark.slow
def test_graphs_equal_the_model_at_any_size(tmp_path, capfd):
    model = tiny_model(pooling="max", centre=True)
    report = export_onnx(model, tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    assert_same(model, tmp_path / "out", [(1, 32, 32), (3, 8, 8), (2, 72, 24), (1, 40, 160)])

    assert set(report.files) == {"image.onnx", "text.onnx", "config.json"}
    assert {found.output for found in report.differences} == {"patches", "pooled", "text"}
    assert {found.shape for found in report.differences} >= {(1, 3, 32, 32), (2, 3, 16, 48)}
    assert all(found.largest <= LIMIT for found in report.differences)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["opset"] == 18 and config["image"]["patch_size"] == 8
    assert config["templates"] == list(resolve_templates(model.defaults.templates))
    assert config["logit_scale"] == pytest.approx(model.defaults.logit_scale)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lse", "shared", "cls", "prefix", "dino", "plain", "bert", "t5", "conv", "split"])
def test_every_pooling_and_tower(kind, tmp_path):
    choices = {
        "lse": {"pooling": "lse", "blocks": (1, 2), "trunk_args": {"img_size": 32, "patch_size": 8, "depth": 2}},
        "shared": {
            "pooling": "lse",
            "blocks": (1, 2),
            "affinity_block": 1,
            "trunk_args": {"img_size": 32, "patch_size": 8, "depth": 2},
        },
        "cls": {"pooling": "cls"},
        "prefix": {"pooling": "max", "pool_prefix_tokens": True, "projection": "mlp", "hidden_dim": 16},
        "dino": {"pooling": "max", "positions": "dino"},
        "plain": {"pooling": "max", "positions": "plain"},
    }
    if kind == "conv":
        model, patch = build_model(load_architecture("align-nano"), seed=1).eval(), 32
    elif kind == "split":
        model, patch = build_model(load_architecture("dinov2-text-nano"), seed=1).eval(), 8
    elif kind in choices:
        model, patch = tiny_model(**choices[kind]), 8
    else:
        model, patch = tiny_model(text=kind, folder=tmp_path / "words"), 8
    export_onnx(model, tmp_path / "out", opset=20)
    assert_same(model, tmp_path / "out", [(1, 4 * patch, 4 * patch), (2, 9 * patch, 3 * patch)])


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ClippyError, match="onnxruntime") as caught:
        export_onnx(tiny_model(), tmp_path / "out")
    assert caught.value.hint == install_command("onnx")
    assert not (tmp_path / "out").exists()


def test_an_opset_that_does_not_exist(tmp_path):
    with pytest.raises(ClippyError, match="not 99"):
        export_onnx(tiny_model(), tmp_path / "out", opset=99)
    assert list(tmp_path.iterdir()) == []
