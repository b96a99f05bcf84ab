from __future__ import annotations

import numpy as np
import pytest
import torch

from clippy_cli.data.captions import BrokenSampleError, CaptionedImage
from clippy_cli.training.loader import ImageFeed, open_source
from clippy_cli.training.order import Steps, epoch_order, keep_indices


def feed(recipe, workers: int) -> ImageFeed:
    data = recipe.data.model_copy(update={"workers": workers})
    return ImageFeed(open_source(data.source, 32), data, 32, seed=recipe.seed, pin_memory=False)


def test_batches_do_not_depend_on_workers_nor_on_where_a_run_starts(tiny) -> None:
    recipe = tiny("data.crop_scale=[0.5, 1]")
    alone = list(feed(recipe, 0).training(8, 0, 7))
    helped = list(feed(recipe, 2).training(8, 0, 7))
    resumed = list(feed(recipe, 0).training(8, 4, 7))
    for mine, theirs in [*zip(alone, helped, strict=True), *zip(alone[4:], resumed, strict=True)]:
        assert (mine.indices, mine.captions) == (theirs.indices, theirs.captions)
        assert torch.equal(mine.images, theirs.images)


def test_captions_crops_and_flips_change_from_epoch_to_epoch(tiny) -> None:
    batches = list(feed(tiny("data.crop_scale=[0.5, 1]"), 0).training(40, 0, 2))
    by_sample = [{i: (b.captions[n], b.images[n]) for n, i in enumerate(b.indices)} for b in batches]
    first, second = by_sample
    assert sorted(first) == sorted(second) == list(range(40))
    assert any(first[i][0] != second[i][0] for i in first)
    assert sum(torch.equal(first[i][1], second[i][1]) for i in first) < 4


def test_an_epoch_is_a_permutation_cut_into_whole_batches() -> None:
    draws = list(Steps(count=10, batch_size=3, seed=5, first=0, last=6))
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
    problems = ()

    def __len__(self) -> int:
        return 6

    def read(self, index: int) -> CaptionedImage:
        if index % 3 == 0:
            raise BrokenSampleError(f"sample {index}", "no image")
        return CaptionedImage(str(index), np.full((40, 40, 3), index, np.uint8), ("a", "b"))

    def describe(self) -> str:
        return "flaky"


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_samples_are_left_out_and_named(tiny, workers: int) -> None:
    recipe = tiny(f"data.workers={workers}")
    source = ImageFeed(Flaky(), recipe.data, 32, seed=0, pin_memory=False)
    (batch,) = source.plain(np.arange(6), 6)
    assert batch.indices == [1, 2, 4, 5] and batch.captions == [("a", "b")] * 4
    assert batch.images[:, 0, 0, 0].tolist() == [1, 2, 4, 5] and batch.images.shape == (4, 3, 32, 32)
    assert batch.broken == {0: "sample 0: no image", 3: "sample 3: no image"}
