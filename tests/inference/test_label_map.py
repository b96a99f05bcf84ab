"""Painting label maps: upsampling in strips, softmax, thresholds."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clippy_cli.inference import upsampling
from clippy_cli.inference.label_map import paint, scored_map
from clippy_cli.inference.upsampling import upsample_rows


@pytest.mark.parametrize(
    ("grid", "size"), [((28, 37), (375, 500)), ((1, 1), (5, 7)), ((3, 9), (2, 4)), ((6, 8), (48, 64))]
)
def test_rows_equal_the_same_rows_of_a_whole_interpolation(grid, size):
    maps = torch.randn(4, *grid, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    bounds = sorted({0, 1, size[0] // 3, size[0]})
    strips = [upsample_rows(maps, *size, start, stop) for start, stop in pairwise(bounds)]
    torch.testing.assert_close(torch.cat(strips, dim=1), whole, atol=1e-9, rtol=0)


def test_codes_and_scores_follow_the_definition_whatever_the_strips():
    logits = 5 * torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(1))
    codes, threshold = (1, 2, 2, 0), 0.6
    whole = F.interpolate(logits[None], (61, 47), mode="bilinear", align_corners=False)[0].softmax(dim=0)
    probability, winner = whole.max(dim=0)
    expected = torch.tensor(codes)[winner].masked_fill(probability < threshold, 0).numpy()
    assert set(np.unique(expected)) == {0, 1, 2}
    for strip_elements in (1, 4 * 47 * 7, 10**9):
        painted = paint(logits, 61, 47, codes, softmax=True, threshold=threshold, strip_elements=strip_elements)
        np.testing.assert_array_equal(painted.codes, expected)
        for code in (0, 1, 2):
            mean = probability.numpy()[expected == code].mean()
            assert painted.scores[code] == pytest.approx(mean, abs=1e-5)
        assert painted.shares.sum() == pytest.approx(1)


def test_a_code_without_pixels_has_no_score():
    painted = paint(torch.tensor([[[1.0]], [[0.0]]]), 3, 4, (1, 2))
    assert painted.pixels.tolist() == [0, 12, 0]
    assert np.isnan(painted.scores[[0, 2]]).all()
    assert painted.scores[1] == 1.0


def test_memory_does_not_grow_with_labels_times_pixels(monkeypatch):
    sizes = []

    def watched(*arguments):
        strip = upsample_rows(*arguments)
        sizes.append(strip.numel())
        return strip

    monkeypatch.setattr(upsampling, "upsample_rows", watched)
    painted = paint(torch.randn(60, 4, 4), 40, 300, range(1, 61), strip_elements=60 * 300 * 5 + 7)
    assert sizes == [60 * 300 * 5] * 8
    assert painted.pixels.sum() == 40 * 300


def test_codes_that_are_known_are_scored_as_painted_ones():
    logits = 5 * torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(2))
    codes = (1, 2, 2, 0)
    painted = paint(logits, 61, 47, codes, softmax=True)
    scored = scored_map(logits, torch.from_numpy(painted.codes), 3, softmax=True)
    np.testing.assert_array_equal(scored.pixels, painted.pixels)
    np.testing.assert_allclose(scored.scores, painted.scores, rtol=1e-6)


def test_barred_maps_lose_to_the_next_best_but_keep_their_share():
    logits = torch.tensor([2.0, 1.0, 0.0]).view(3, 1, 1)
    painted = paint(logits, 2, 2, (1, 2, 3), softmax=True, barred=torch.tensor([True, False, False]), count=5)
    assert painted.pixels.tolist() == [0, 0, 4, 0, 0]
    assert painted.scores[2] == pytest.approx(logits.flatten().softmax(dim=0)[1].item())


def test_pixels_below_the_threshold_get_the_fallback():
    painted = paint(torch.tensor([[[0.2, 0.9]]]), 1, 2, (1,), threshold=0.5, fallback=4)
    assert painted.codes.tolist() == [[4, 1]]
