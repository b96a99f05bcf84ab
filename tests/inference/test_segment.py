"""Text-driven segmentation and zero-shot ranking: the one rule, against a plain reimplementation and by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clippy_cli.data.labels import Vocabulary, parse_labels
from clippy_cli.inference.choices import Competition
from clippy_cli.inference.classify import rank_labels
from clippy_cli.inference.segment import Entries, Rule, ScoreKind, Segmenter

AXES = torch.eye(4)
NO_PHOTO = np.zeros((1, 1, 3), np.uint8)


def vocabulary(labels, background=None):
    return Vocabulary(parse_labels(labels), parse_labels(background) if background else ())


def segment(patches, texts, words, height, width, **rule):
    segmenter = Segmenter(texts, Entries.of_vocabulary(words), Rule(**rule))
    return segmenter, segmenter.label_map(segmenter.scores(patches), NO_PHOTO, height, width)


def test_synonyms_are_merged_by_their_maximum():
    patches = F.normalize(torch.tensor([[[0.1, 0.9, 0.5, 0.2], [0.3, -0.2, 0.1, 0.8]]]), dim=-1)
    segmenter = Segmenter(AXES, Entries.of_vocabulary(vocabulary("a|b,c", "d")), Rule(1.0))
    expected = torch.stack([patches[..., :2].amax(dim=-1), patches[..., 2], patches[..., 3]])
    torch.testing.assert_close(segmenter.scores(patches), expected)


def test_background_words_win_pixels_but_label_none():
    patches = AXES[[0, 1, 2, 3]].view(1, 4, 4)
    segmenter, label_map = segment(patches, AXES, vocabulary("a,b", "c|d"), 1, 4, logit_scale=10.0)
    assert label_map.codes.tolist() == [[1, 2, 0, 0]]
    assert segmenter.score_kind is ScoreKind.PROBABILITY
    probability = torch.tensor([10.0, 0.0, 0.0]).softmax(dim=0)[0].item()  # three entries: c and d are one
    assert label_map.scores[1] == pytest.approx(probability, abs=1e-6)


def test_one_label_alone_is_scored_by_its_cosine():
    patches, texts = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]]), torch.tensor([[1.0, 0.0]])
    segmenter, everything = segment(patches, texts, vocabulary("a"), 1, 2, logit_scale=50.0)
    assert segmenter.score_kind is ScoreKind.COSINE
    assert everything.codes.tolist() == [[1, 1]]
    assert everything.scores[1] == pytest.approx(0.8)
    _, some = segment(patches, texts, vocabulary("a"), 1, 2, logit_scale=50.0, threshold=0.7)
    assert some.codes.tolist() == [[1, 0]]


def test_texts_that_compete_alone_share_the_probability():
    groups = [(("a", "b"), 1), (("c",), 2)]
    patches, texts = AXES[:3].mean(dim=0).view(1, 1, 4), AXES[:3]
    scores = {}
    for competition in Competition:
        segmenter = Segmenter(texts, Entries.of(groups, competition), Rule(10.0))
        scores[competition] = segmenter.label_map(segmenter.scores(patches), NO_PHOTO, 1, 1).scores[1]
    assert scores[Competition.ENTRIES] == pytest.approx(1 / 2)
    assert scores[Competition.TEXTS] == pytest.approx(1 / 3)


def plain_rule(logits, codes, threshold, min_area, fallback, size):
    """Everything upsampled at once: winners, then small codes barred, then the threshold."""
    whole = F.interpolate(logits[None].double(), size, mode="bilinear", align_corners=False)[0]
    probabilities = whole.softmax(dim=0)
    code_of = torch.tensor(codes)
    allowed = torch.ones(len(codes), dtype=torch.bool)
    if min_area is not None:
        areas = torch.bincount(code_of[probabilities.argmax(dim=0)].flatten(), minlength=4)
        areas[fallback] = 0
        allowed = (areas[code_of] > min_area * areas.sum()) | (code_of == fallback)
    best, winner = probabilities.masked_fill(~allowed[:, None, None], -1).max(dim=0)
    predicted = code_of[winner].masked_fill(best < 0, fallback)
    return (predicted if threshold is None else predicted.masked_fill(best < threshold, fallback)), best


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 6),
    st.sampled_from([None, 0.3, 0.5]),
    st.sampled_from([None, 0.1, 0.4, 1.0]),
    st.integers(0, 3),
    st.integers(0, 999),
)
def test_codes_and_label_maps_agree_and_follow_the_plain_rule(count, threshold, min_area, fallback, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, 5, 7, generator=generator) / 3
    codes = tuple(torch.randint(0, 4, (count,), generator=generator).tolist())
    entries = Entries(tuple("abcdef"[:count]), (1,) * count, codes)
    segmenter = Segmenter(torch.eye(count), entries, Rule(6.0, threshold, min_area, fallback))
    label_map = segmenter.label_map(scores, NO_PHOTO, 31, 23)
    counted = segmenter.codes(scores, NO_PHOTO, 31, 23)
    np.testing.assert_array_equal(label_map.codes, counted.numpy())
    pixels = np.bincount(label_map.codes.ravel(), minlength=len(label_map.pixels))
    np.testing.assert_array_equal(label_map.pixels, pixels)
    expected, best = plain_rule(scores * 6, codes, threshold, min_area, fallback, (31, 23))
    edges = torch.zeros_like(best, dtype=torch.bool) if threshold is None else (best - threshold).abs() < 1e-5
    assert bool(((counted == expected) | edges).all())


def test_labels_are_ranked_with_merged_synonyms():
    guesses = rank_labels(torch.tensor([0.1, 0.5, 0.3, 0.3]), vocabulary("a|b,c,d"), logit_scale=10.0, top_k=2)
    assert [guess.label for guess in guesses] == ["a", "c"]
    expected = torch.tensor([5.0, 3.0, 3.0]).softmax(dim=0)
    assert [guess.probability for guess in guesses] == pytest.approx(expected[:2].tolist())
    assert [guess.score for guess in guesses] == pytest.approx([0.5, 0.3])
