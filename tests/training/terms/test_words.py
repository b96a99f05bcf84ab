import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from clippy_cli.processes import ALONE
from clippy_cli.recipe.terms import WordsRecipe
from clippy_cli.training.loader import Batch
from clippy_cli.training.step_shapes import StepShape
from clippy_cli.training.terms.base import Pairs
from clippy_cli.training.terms.words import CaptionWords, WordsTerm, word_loss

CAPTIONS = [
    ("A dog runs.", "The black dog is here", "a man"),
    ("a dog and a cat",),
    ("Two cats: cat, CAT!",),
    (),  # a broken sample
]


def test_a_word_counts_where_enough_captions_of_a_sample_hold_it():
    vocabulary = CaptionWords(CAPTIONS, min_images=2, min_share=0.5)
    assert vocabulary.words == ("cat", "dog")
    np.testing.assert_array_equal(vocabulary.targets([2, 0, 1, 3]), [[1, 0], [0, 1], [1, 1], [0, 0]])
    np.testing.assert_allclose(vocabulary.frequency, [2 / 4, 2 / 4])


def test_stop_words_and_the_words_of_prompts_do_not_count():
    captions = [("a photo of the dog and this is it",)] * 3
    assert CaptionWords(captions, min_images=3, min_share=1.0, excluded=["photo"]).words == ("dog",)


@given(st.lists(st.lists(st.text(max_size=12), max_size=3), max_size=5))
def test_any_text_is_counted(captions: list[list[str]]):
    vocabulary = CaptionWords(captions, min_images=1, min_share=0.1)
    targets = vocabulary.targets(range(len(captions)))
    assert targets.shape == (len(captions), len(vocabulary.words))
    assert (targets.sum(axis=0) >= 1).all()


def test_the_loss_is_the_mean_of_two_cross_entropies_written_out_one_by_one():
    torch.manual_seed(0)
    images, texts = (F.normalize(torch.randn(count, 5, dtype=torch.double), dim=-1) for count in (4, 6))
    targets = torch.rand(4, 6) < 0.4
    targets[1], targets[:, 2] = False, False  # an image and a word without any
    prior, scale = torch.randn(6).double(), torch.tensor(7.0).double()
    rows, columns = [], []
    scores = (scale * images @ texts.T).tolist()
    for b in range(4):
        logits = [scores[b][v] + float(prior[v]) for v in range(6)]
        all_words = math.log(sum(map(math.exp, logits)))
        losses = [all_words - logits[v] for v in range(6) if targets[b, v]]
        rows += [sum(losses) / len(losses)] if losses else []
    for v in range(6):
        all_images = math.log(sum(math.exp(scores[b][v]) for b in range(4)))
        losses = [all_images - scores[b][v] for b in range(4) if targets[b, v]]
        columns += [sum(losses) / len(losses)] if losses else []
    expected = (sum(rows) / len(rows) + sum(columns) / len(columns)) / 2
    assert float(word_loss(images, targets, texts, scale, prior=prior)) == pytest.approx(expected)


def test_no_word_at_all_costs_nothing():
    images, texts = F.normalize(torch.randn(3, 5), dim=-1), F.normalize(torch.randn(2, 5), dim=-1)
    assert float(word_loss(images, torch.zeros(3, 2, dtype=torch.bool), texts, torch.tensor(9.0))) == 0.0


def test_the_term_follows_the_samples_of_the_batch_and_is_weighted():
    vocabulary = CaptionWords(CAPTIONS, min_images=2, min_share=0.5)
    texts, images = F.normalize(torch.randn(2, 5), dim=-1), F.normalize(torch.randn(3, 4, 5), dim=-1)
    captions, scale, bias = F.normalize(torch.randn(3, 5), dim=-1), torch.tensor(20.0), torch.tensor(0.0)
    term = WordsTerm(vocabulary, texts, WordsRecipe(weight=3.0, balance=0.0), 20.0, ALONE)
    pairs = Pairs(images, captions, scale, bias, 0, StepShape(32, 0.0, None))
    targets = torch.tensor([[True, True], [True, False], [False, True]])
    expected = 3.0 * word_loss(images, targets, texts, scale, lse_scale=20.0)
    torch.testing.assert_close(term.loss(Batch([1, 2, 0], []), pairs), {"words": expected})
