"""Votes of patches, on maps made by hand and against a loop over patches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clippy_cli.errors import ClippyError
from clippy_cli.waterbirds.measure.vote import patch_votes

LAND, WATER, BACKGROUND = 0, 1, 2
THREE = (LAND, WATER, BACKGROUND)


def drawn(rows, peaks=(0.5, 0.5, 0.5)):
    """A map of texts, a digit a patch -> (3,h,w) cosines that are a text's peak where it is drawn and 0.1 elsewhere."""
    chosen = torch.tensor([[int(letter) for letter in row] for row in rows])
    return torch.stack([torch.where(chosen == k, peak, 0.1) for k, peak in enumerate(peaks)])


def test_the_majority_wins_and_the_background_does_not_vote():
    found = patch_votes(drawn(["2222", "2112", "2012"], peaks=(0.9, 0.3, 0.95)), THREE, BACKGROUND)
    assert found.label == WATER
    assert found.votes == (1, 3, 0)
    assert found.background_share == 8 / 12
    assert found.class_map.tolist() == [[2, 2, 2, 2], [2, 1, 1, 2], [2, 0, 1, 2]]
    assert found.class_map.dtype == np.uint8
    assert not found.fallback


@pytest.mark.parametrize(
    ("peaks", "label"), [((0.5, 0.4, 0.9), LAND), ((0.4, 0.5, 0.9), WATER), ((0.5, 0.5, 0.9), LAND)]
)
def test_a_tie_goes_to_the_highest_single_patch(peaks, label):
    found = patch_votes(drawn(["0012", "2212"], peaks), THREE, BACKGROUND)
    assert found.votes == (2, 2, 0)
    assert found.fallback
    assert found.label == label


def test_without_a_vote_the_highest_patch_that_the_background_beat_decides():
    similarity = drawn(["22", "22"], peaks=(0.5, 0.5, 0.9))
    similarity[WATER, 1, 0] = 0.3
    found = patch_votes(similarity, THREE, BACKGROUND)
    assert (found.label, found.votes, found.background_share, found.fallback) == (WATER, (0, 0, 0), 1.0, True)


def test_a_class_with_fewer_votes_cannot_win_a_tie_of_others():
    found = patch_votes(drawn(["00112"], peaks=(0.3, 0.4, 0.9)), THREE, 9)
    assert (found.label, found.fallback, found.background_share) == (WATER, True, 0.0)


def test_texts_share_a_class_and_the_background_may_be_any():
    found = patch_votes(drawn(["0012", "1222"]), (1, 2, 1), 0)
    assert found.votes == (0, 6, 2)
    assert found.label == 1
    found = patch_votes(drawn(["0012", "1222"]), (2, 0, 0), 0)
    assert (found.label, found.votes, found.background_share) == (2, (0, 0, 2), 0.75)
    found = patch_votes(drawn(["1222"]), (2, 0, 0), 0)  # the only class that is left, without a vote
    assert (found.label, found.votes, found.fallback) == (2, (0, 0, 0), True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations([0, 1, 2, 1, 2]))
def test_agrees_with_a_loop_over_patches(seed, classes):
    rng = np.random.default_rng(seed)
    similarity = rng.integers(-4, 5, size=(5, 2, 3)) / 10  # few values: many ties
    votes, peak = [0, 0, 0], [-2.0, -2.0, -2.0]
    for y in range(2):
        for x in range(3):
            column = similarity[:, y, x].tolist()
            votes[classes[column.index(max(column))]] += 1
            for text, cosine in enumerate(column):
                peak[classes[text]] = max(peak[classes[text]], cosine)
    label = sorted((-votes[c], -peak[c], c) for c in (0, 1))[0][2]
    found = patch_votes(torch.from_numpy(similarity), classes, 2)
    assert (found.label, found.votes[:2], found.background_share) == (label, tuple(votes[:2]), votes[2] / 6)
    assert found.fallback == (votes[0] == votes[1])


def test_half_precision_and_what_is_refused():
    assert patch_votes(drawn(["001"]).bfloat16(), THREE, BACKGROUND).label == LAND
    with pytest.raises(ClippyError, match="not finite"):
        patch_votes(drawn(["001"]) / 0 * 0, THREE, BACKGROUND)
    for similarity, classes in [
        (drawn(["001"]), (0, 1)),
        (drawn(["001"]), (2, 2, 2)),
        (drawn(["001"]), (-1, 0, 2)),
        (drawn(["001"]), (0, 256, 2)),
        (torch.zeros(3, 0, 0), THREE),
        (torch.zeros(3, 4), THREE),
    ]:
        with pytest.raises(ValueError, match=r"similarities of shape|need others"):
            patch_votes(similarity, classes, BACKGROUND)
