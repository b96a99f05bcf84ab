"""Folders for open_clip, read back by open_clip alone."""

from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from clippy_cli.errors import ClippyError
from clippy_cli.export.open_clip_folder import CONFIG_FILE, LIMIT, WEIGHTS_FILE, export_open_clip
from clippy_cli.model.build import build_model
from clippy_cli.model.registry import load_architecture
from clippy_cli.model.sources.open_clip_model import load_open_clip
from clippy_cli.model.store import save_model
from tests.fixtures.export_models import TRUNK, tiny_model

ROTARY = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
CASES: dict[str, dict[str, Any]] = {
    "class token": {"pooling": "cls"},
    "mean of the patches": {"pooling": "avg"},
    "CLIP's norm before the blocks": {"pooling": "cls", "trunk": "vit_base_patch16_clip_224"},
    "layer scale, no projection": {
        "pooling": "cls", "projection": "none", "trunk_args": TRUNK | {"init_values": 0.5},
    },
    "a position table of another size": {"pooling": "cls", "trunk_args": TRUNK | {"img_size": 48}},
    "BERT": {"pooling": "cls", "text": "bert"},
    "T5": {"pooling": "cls", "text": "t5"},
}  # fmt: skip


def assert_same(model, folder):
    other, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    side = model.preprocess.resolution
    photo = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    given = model.preprocess.normalize(torch.from_numpy(photo).permute(2, 0, 1)[None])
    texts = ["grass", "a photo of two brown dogs"]
    with torch.no_grad():
        image = other.eval().encode_image(preprocess(Image.fromarray(photo))[None], normalize=True)
        words = other.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(texts), normalize=True)
    torch.testing.assert_close(image, model.embed_images(given), atol=1e-5, rtol=0)
    torch.testing.assert_close(words, model.embed_texts(texts), atol=1e-5, rtol=0)
    assert float(other.logit_scale.exp().detach()) == pytest.approx(model.defaults.logit_scale)


@pytest.mark.parametrize("case", CASES)
def test_open_clip_embeds_as_the_model_does(case, tmp_path):
    choice = dict(CASES[case])
    folder = tmp_path / "words" if "text" in choice else None
    model = tiny_model(folder=folder, **choice)
    report = export_open_clip(model, tmp_path / "out")
    assert_same(model, tmp_path / "out")
    assert {found.output for found in report.differences} == {"images", "texts"}
    assert all(found.largest <= LIMIT for found in report.differences)
    assert bool(report.notes) == ("text" in choice)


def test_a_damaged_export_is_found_and_an_edited_description_is_not(tmp_path):
    model = tiny_model(pooling="cls")
    export_open_clip(model, tmp_path / "out")
    description, weights = tmp_path / "out" / CONFIG_FILE, tmp_path / "out" / WEIGHTS_FILE
    description.write_text(description.read_text() + "\n")
    load_open_clip(str(tmp_path / "out"), torch.device("cpu"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ClippyError, match=f"{WEIGHTS_FILE} is damaged"):
        load_open_clip(str(tmp_path / "out"), torch.device("cpu"))
    save_model(model, tmp_path / "model")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ClippyError, match="is a model directory"):
        export_open_clip(model, tmp_path / "model", overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_convolutional_trunk_with_its_mean(tmp_path):
    model = build_model(load_architecture("align-nano"), seed=1).eval()
    export_open_clip(model, tmp_path / "out")
    assert_same(model, tmp_path / "out")


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"pooling": "max"}, "max pooling"),
        ({"pooling": "lse"}, "lse pooling"),
        ({"pooling": "cls+avg", "projection": "linear"}, "cls+avg pooling"),
        ({"pooling": "avg", "head_blocks": 1}, "image.head_blocks"),
        ({"pooling": "cls", "trunk": "vit_small_patch16_dinov3", "trunk_args": ROTARY}, "rotary positions"),
        ({"pooling": "cls", "centre": True}, "centred"),
        ({"pooling": "cls", "blocks": (1,), "affinity_block": 1}, "affinity"),
        ({"pooling": "avg", "pool_prefix_tokens": True}, "takes in the class token"),
        ({"pooling": "cls", "projection": "mlp", "hidden_dim": 16}, "mlp projection"),
        ({"pooling": "cls", "trunk_args": TRUNK | {"depth": 2}, "blocks": (1, 2)}, "blocks [1, 2]"),
        ({"pooling": "cls", "trunk_args": TRUNK | {"reg_tokens": 2}}, "3 prefix tokens"),
        ({"pooling": "cls", "trunk_args": TRUNK | {"qk_norm": True}}, "q_norm"),
        ({"pooling": "cls", "trunk": "vit_base_patch16_clip_quickgelu_224"}, "QuickGELU"),
    ],
)
def test_what_open_clip_cannot_express_is_named(choice, says, tmp_path):
    with pytest.raises(ClippyError) as caught:
        export_open_clip(tiny_model(**choice), tmp_path / "out")
    assert says in caught.value.message and "export onnx" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
