"""Reading and encoding many images: order, batches, one bad file, limits."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clippy_cli.errors import ClippyError
from clippy_cli.inference.classify import image_scores
from clippy_cli.inference.features import (
    Encoded,
    Failed,
    dense_embeddings,
    encode_images,
    patch_embeddings,
    read_photo,
    window_starts,
)
from tests.fixtures.colour_model import ColourModel


def paint_file(folder, name, width, height, rgb=(255, 0, 0)):
    path = folder / name
    Image.new("RGB", (width, height), rgb).save(path)
    return path


def encode(paths, model, **changes):
    settings = {"patch_size": 8, "resolution": 48, "batch_size": 3, **changes}
    return list(encode_images(paths, read_photo, partial(patch_embeddings, model), **settings))


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
            assert result.sample.key == str(path)
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
                [paint_file(tmp_path, "a.png", 48, 48)], read_photo, full, patch_size=8, resolution=48, batch_size=2
            )
        )


def test_image_scores_are_the_models(tmp_path):
    model = ColourModel()
    images = [np.full((48, 48, 3), (0, 0, 255), np.uint8)]
    scores = image_scores(model, model.embed_texts(["red", "blue"]), images)
    torch.testing.assert_close(scores, torch.tensor([[0.0, 1.0]]))


class Counting(ColourModel):
    """Adds to each patch what only its window knows, so that overlaps can be told apart."""

    def embed_patches(self, images):
        return super().embed_patches(images) + len(self.batches)


def test_windows_cover_the_image_and_are_averaged_where_they_overlap():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    model = Counting()
    windowed = dense_embeddings(model, [pixels, pixels], window=24, stride=16)
    plain = dense_embeddings(ColourModel(), [pixels])
    total, count = torch.zeros(5, 7, 3), torch.zeros(5, 7, 1)
    for number, (y, x) in enumerate(product((0, 2), (0, 2, 4)), start=1):
        total[y : y + 3, x : x + 3] += plain[0, y : y + 3, x : x + 3] + number
        count[y : y + 3, x : x + 3] += 1
    torch.testing.assert_close(windowed[1], total / count)
    assert set(model.batches) == {(2, 3, 24, 24)}
    whole = dense_embeddings(ColourModel(), [pixels], window=640, stride=8)
    torch.testing.assert_close(whole, plain)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 200))
def test_windows_leave_no_gap(size, window, stride):
    stride = min(stride, window)
    starts = window_starts(size, window, stride)
    covered = {pixel for start in starts for pixel in range(start, min(start + window, size))}
    assert covered == set(range(size))
    assert starts == sorted(set(starts)) and starts[-1] == max(size - window, 0)


def test_cut_lists_make_the_same_batches(tmp_path):
    paths = [paint_file(tmp_path, f"{i}.png", 48, 48) for i in range(7)]
    whole, first, rest = ColourModel(), ColourModel(), ColourModel()
    encode(paths, whole)
    encode(paths[:3], first)
    encode(paths[3:], rest)
    assert whole.batches == first.batches + rest.batches


def test_crop_takes_the_square_in_the_middle(tmp_path):
    path = tmp_path / "wide.png"
    image = Image.new("RGB", (96, 48), (0, 0, 255))
    image.paste((255, 0, 0), (24, 0, 72, 48))
    image.save(path)
    ((result),) = encode([path], ColourModel(), crop=True)
    assert result.output.shape == (6, 6, 3)
    torch.testing.assert_close(result.output, torch.tensor([1.0, 0.0, 0.0]).expand(6, 6, 3))
