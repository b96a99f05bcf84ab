from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from clippy_cli.data.captions import BrokenSampleError, CaptionedImage
from clippy_cli.data.pictures import ArrayPicture
from clippy_cli.data.scenes import SceneSource
from clippy_cli.data.streams import START
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices
from clippy_cli.training.loader import SUBSTITUTES, Batch, ImageFeed
from clippy_cli.training.order import BatchShare, Steps, epoch_order, keep_indices
from clippy_cli.training.step_shapes import StepShapes


def token_ids(texts) -> torch.Tensor:
    """Lengths of the texts, in the place of a tokenizer."""
    return torch.tensor([[len(text)] for text in texts])


def feed(recipe, workers: int, source=None) -> ImageFeed:
    data = recipe.data.model_copy(update={"workers": workers})
    return ImageFeed(source or SceneSource(40, 0, 32), data, 32, token_ids, seed=recipe.seed, pin_memory=False)


def training(
    recipe, workers: int, batch_size: int, first: int, last: int, *, rank: int = 0, size: int = 1, source=None
):
    shapes = StepShapes(recipe, recipe.data.resolution or (32,), last)
    return list(feed(recipe, workers, source).training(BatchShare(batch_size, rank, size), first, shapes, START))


def assert_equal(mine: Batch, theirs: Batch) -> None:
    assert (mine.indices, mine.captions, mine.broken) == (theirs.indices, theirs.captions, theirs.broken)
    assert torch.equal(mine.images, theirs.images) and torch.equal(mine.token_ids, theirs.token_ids)


def test_batches_do_not_depend_on_workers_nor_on_where_a_run_starts(tiny) -> None:
    recipe = tiny("data.crop_scale=[0.5, 1]")
    alone, helped, resumed = training(recipe, 0, 8, 0, 7), training(recipe, 2, 8, 0, 7), training(recipe, 0, 8, 4, 7)
    for mine, theirs in [*zip(alone, helped, strict=True), *zip(alone[4:], resumed, strict=True)]:
        assert_equal(mine, theirs)


def test_workers_start_beside_opencvs_own_threads(tiny) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (31, 31), 0)  # starts them
    try:
        assert len(training(tiny(), 2, 8, 0, 2)) == 2
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(threads)


def test_processes_share_the_batch_of_one(tiny) -> None:
    recipe = tiny("data.crop_scale=[0.5, 1]")
    parts = [training(recipe, 0, 8, 2, 5, rank=rank, size=4) for rank in range(4)]
    for whole, *of_step in zip(training(recipe, 0, 8, 2, 5), *parts, strict=True):
        assert [index for part in of_step for index in part.indices] == whole.indices
        assert torch.equal(torch.cat([part.images for part in of_step]), whole.images)


def test_each_batch_draws_one_of_several_resolutions(tiny) -> None:
    recipe = tiny("data.resolution=[16, 32]", "train.final={share: 0.25, resolution: 24}")
    batches = training(recipe, 0, 8, 0, 12)
    sides = [batch.images.shape[-1] for batch in batches]
    assert set(sides[:9]) == {16, 32} and sides[9:] == [24, 24, 24]
    assert [batch.images.shape[-1] for batch in training(recipe, 0, 8, 5, 12)] == sides[5:]


def test_captions_crops_and_flips_change_from_epoch_to_epoch(tiny) -> None:
    batches = training(tiny("data.crop_scale=[0.5, 1]"), 0, 40, 0, 2)
    by_sample = [{i: (b.captions[n], b.images[n]) for n, i in enumerate(b.indices)} for b in batches]
    first, second = by_sample
    assert sorted(first) == sorted(second) == list(range(40))
    assert any(first[i][0] != second[i][0] for i in first)
    assert sum(torch.equal(first[i][1], second[i][1]) for i in first) < 4


def test_an_epoch_is_a_permutation_cut_into_whole_batches(tiny) -> None:
    draws = list(Steps(10, BatchShare(3), seed=5, first=0, shapes=StepShapes(tiny(), (32,), 6)))
    for epoch in (0, 1):
        samples = [draw.sample for step in draws[3 * epoch : 3 * epoch + 3] for draw in step]
        assert samples == epoch_order(10, 5, epoch)[:9].tolist()
        assert len(set(samples)) == 9
    assert epoch_order(10, 5, 0).tolist() != epoch_order(10, 5, 1).tolist() != epoch_order(10, 6, 1).tolist()


def test_kept_tokens_follow_seed_and_step() -> None:
    def draw(seed: int, step: int) -> torch.Tensor:
        return keep_indices(2, 16, 0.5, seed=seed, step=step, device=torch.device("cpu"))

    assert torch.equal(draw(1, 2), draw(1, 2))
    assert not torch.equal(draw(1, 2), draw(1, 3)) and not torch.equal(draw(1, 2), draw(2, 2))
    assert keep_indices(2, 16, 0.0, seed=1, step=2, device=torch.device("cpu")) is None


class Flaky:
    notices = Notices()

    def __len__(self) -> int:
        return 6

    def read(self, index: int) -> CaptionedImage:
        if index % 3 == 0:
            raise BrokenSampleError(f"sample {index}", "no image")
        return CaptionedImage(str(index), ArrayPicture(np.full((40, 40, 3), index, np.uint8)), ("a", "b"))

    def describe(self) -> str:
        return "flaky"


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_samples_are_left_out_of_plain_batches_and_named(tiny, workers: int) -> None:
    (batch,) = feed(tiny(), workers, Flaky()).plain(np.arange(6), 6)
    assert batch.indices == [1, 2, 4, 5] and batch.captions == [("a", "b")] * 4
    assert batch.images[:, 0, 0, 0].tolist() == [1, 2, 4, 5] and batch.images.shape == (4, 3, 32, 32)
    assert batch.broken == {0: "sample 0: no image", 3: "sample 3: no image"}


def test_another_sample_stands_in_for_a_broken_one(tiny) -> None:
    batches, resumed = training(tiny(), 0, 6, 0, 4, source=Flaky()), training(tiny(), 1, 6, 2, 4, source=Flaky())
    for batch in batches:
        assert len(batch) == 6 and set(batch.indices) == {1, 2, 4, 5} and set(batch.broken) == {0, 3}
        assert batch.images[:, 0, 0, 0].tolist() == batch.indices
    for mine, theirs in zip(batches[2:], resumed, strict=True):
        assert_equal(mine, theirs)


@pytest.mark.parametrize("workers", [0, 1])
def test_data_without_a_readable_sample_is_an_error(tiny, monkeypatch, workers: int) -> None:
    monkeypatch.setattr(Flaky, "__len__", lambda self: 1)
    with pytest.raises(ClippyError, match=f"{SUBSTITUTES} samples in a row cannot be read.*sample 0: no image"):
        training(tiny(), workers, 1, 0, 1, source=Flaky())
