"""Reading and encoding many images: order, batches, one bad file, limits."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from clippy_cli.errors import ClippyError
from clippy_cli.inference.features import Encoded, Failed, encode_images, image_scores, patch_embeddings, read_file
from tests.fixtures.colour_model import ColourModel


def paint_file(folder, name, width, height, rgb=(255, 0, 0)):
    path = folder / name
    Image.new("RGB", (width, height), rgb).save(path)
    return path


def encode(paths, model, **changes):
    settings = {"patch_size": 8, "resolution": 48, "batch_size": 3, **changes}
    return list(encode_images(paths, read_file, partial(patch_embeddings, model), **settings))


def test_results_come_in_order_and_equal_sizes_share_a_batch(tmp_path):
    sizes = [(64, 48), (48, 48), (64, 48), (48, 96), (64, 48)]
    paths = [paint_file(tmp_path, f"{i}.png", *size, (50 * i, 9, 7)) for i, size in enumerate(sizes)]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    paths.insert(1, broken)
    model = ColourModel()
    results = encode(paths, model)
    assert [type(result) for result in results] == [Encoded, Failed, *[Encoded] * 4]
    assert results[1].key == broken
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, Encoded):
            pixels = torch.from_numpy(np.asarray(Image.open(path))[0, 0].astype(np.float32))
            torch.testing.assert_close(result.output[0, 0], pixels / pixels.norm())
            assert result.sample.path == path
    assert [shape[0] for shape in model.batches] == [1, 1, 2, 1]  # windows of three files, split by size


def test_a_batch_shrinks_where_images_have_many_patches(tmp_path, monkeypatch):
    monkeypatch.setattr("clippy_cli.inference.features.MAX_PATCHES", 100)
    paths = [paint_file(tmp_path, f"{i}.png", 48, 48) for i in range(4)]
    wide = paint_file(tmp_path, "wide.png", 480, 48)
    model = ColourModel()
    results = encode([*paths, wide], model, batch_size=8)
    assert [shape[0] for shape in model.batches] == [2, 2]
    assert "60x6 patches" in results[-1].error.message


def test_running_out_of_memory_is_explained(tmp_path):
    def full(images):
        raise torch.cuda.OutOfMemoryError("no")

    with pytest.raises(ClippyError, match="ran out of memory on 1 images of 48x48"):
        list(
            encode_images(
                [paint_file(tmp_path, "a.png", 48, 48)], read_file, full, patch_size=8, resolution=48, batch_size=2
            )
        )


def test_image_scores_are_the_models(tmp_path):
    model = ColourModel()
    images = [np.full((48, 48, 3), (0, 0, 255), np.uint8)]
    scores = image_scores(model, model.embed_texts(["red", "blue"]), images)
    torch.testing.assert_close(scores, torch.tensor([[0.0, 1.0]]))
