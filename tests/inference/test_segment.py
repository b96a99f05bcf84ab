"""Text-driven segmentation and zero-shot ranking on hand-made embeddings."""

import pytest
import torch

from clippy_cli.data.labels import Vocabulary, parse_labels
from clippy_cli.inference.classify import rank_labels
from clippy_cli.inference.segment import entry_similarity, segment_patches

AXES = torch.eye(4)


def vocabulary(labels, background=None):
    return Vocabulary(parse_labels(labels), parse_labels(background) if background else ())


def test_synonyms_are_merged_by_their_maximum():
    words = vocabulary("a|b,c", "d")
    patches = torch.nn.functional.normalize(torch.tensor([[[0.1, 0.9, 0.5, 0.2], [0.3, -0.2, 0.1, 0.8]]]), dim=-1)
    merged = entry_similarity(patches, AXES, words)
    expected = torch.stack([patches[..., :2].amax(dim=-1), patches[..., 2], patches[..., 3]])
    torch.testing.assert_close(merged, expected)


def test_background_words_win_pixels_but_label_none():
    patches = AXES[[0, 1, 2, 3]].view(1, 4, 4)
    result = segment_patches(patches, AXES, vocabulary("a,b", "c|d"), 1, 4, logit_scale=10.0)
    assert result.label_map.codes.tolist() == [[1, 2, 0, 0]]
    assert result.score_kind == "probability"
    probability = torch.tensor([10.0, 0.0, 0.0]).softmax(dim=0)[0].item()  # three entries: c and d are one
    assert result.label_map.scores[1] == pytest.approx(probability, abs=1e-6)


def test_one_label_alone_is_scored_by_its_cosine():
    patches = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    everything = segment_patches(patches, torch.tensor([[1.0, 0.0]]), vocabulary("a"), 1, 2, logit_scale=50.0)
    assert everything.score_kind == "cosine"
    assert everything.label_map.codes.tolist() == [[1, 1]]
    assert everything.label_map.scores[1] == pytest.approx(0.8)
    some = segment_patches(patches, torch.tensor([[1.0, 0.0]]), vocabulary("a"), 1, 2, logit_scale=50.0, threshold=0.7)
    assert some.label_map.codes.tolist() == [[1, 0]]


def test_labels_are_ranked_with_merged_synonyms():
    guesses = rank_labels(torch.tensor([0.1, 0.5, 0.3, 0.3]), vocabulary("a|b,c,d"), logit_scale=10.0, top_k=2)
    assert [guess.label for guess in guesses] == ["a", "c"]
    expected = torch.tensor([5.0, 3.0, 3.0]).softmax(dim=0)
    assert [guess.probability for guess in guesses] == pytest.approx(expected[:2].tolist())
    assert [guess.score for guess in guesses] == pytest.approx([0.5, 0.3])
