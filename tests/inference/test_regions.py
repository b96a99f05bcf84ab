"""One label a region: majorities, ties, and pixels outside."""

import numpy as np
import torch

from clippy_cli.inference.label_map import LabelMap
from clippy_cli.inference.regions import recount, vote

NO_MAPS = torch.zeros(0, 1, 1)


def test_a_region_takes_its_majority_and_the_rest_stays():
    codes = np.array([[1, 1, 2, 0], [2, 1, 2, 3]], np.int16)
    regions = np.array([[1, 1, 2, 2], [1, 1, 2, 0]], np.int32)
    assert vote(codes, regions, NO_MAPS, ()).tolist() == [[1, 1, 2, 2], [1, 1, 2, 3]]


def test_the_higher_mean_score_over_the_region_breaks_ties():
    codes = np.array([[1, 2, 1, 2]], np.int16)
    regions = np.array([[1, 1, 2, 2]], np.int32)
    # Text 0 and 1 paint code 1, of which the better counts; text 2 paints code 2.
    maps = torch.tensor([[[0.1, 0.1, 0.9, 0.0]], [[0.9, 0.0, 0.0, 0.8]], [[0.6, 0.6, 0.5, 0.5]]])
    assert vote(codes, regions, maps, (1, 1, 2)).tolist() == [[2, 2, 1, 1]]
    unlabelled = np.array([[0, 2, 0, 2]], np.int16)
    assert vote(unlabelled, regions, maps, (1, 1, 2)).tolist() == [[2, 2, 2, 2]]


def test_pixels_are_counted_again():
    before = LabelMap(np.array([[1, 2]], np.int16), np.array([0, 1, 1]), np.array([np.nan, 0.5, 0.7]))
    after = recount(before, np.array([[2, 2]], np.int16))
    assert after.pixels.tolist() == [0, 0, 2]
    np.testing.assert_array_equal(after.scores, [np.nan, np.nan, 0.7])
