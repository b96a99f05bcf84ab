"""Texts sorted by length for the tower, in their own order for the caller."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clippy_cli.data.prompts import text_embeddings
from clippy_cli.model.text_batches import embed_by_length, length_batches


@given(lengths=st.lists(st.integers(1, 77), min_size=1, max_size=60), size=st.integers(1, 9))
def test_batches_hold_every_row_once_and_grow_longer(lengths, size):
    batches = length_batches(lengths, size)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    assert [lengths[row] for rows in batches for row in rows] == sorted(lengths)
    assert all(0 < len(rows) <= size for rows in batches)


def test_vectors_come_in_the_order_of_the_texts():
    lengths = [(7 * row) % 31 for row in range(600)]
    vectors = embed_by_length(lambda rows: torch.tensor(rows, dtype=torch.float32)[:, None], lengths)
    torch.testing.assert_close(vectors[:, 0], torch.arange(600.0), atol=0, rtol=0)


def test_many_texts_together_equal_each_by_itself(nano):
    texts = [" ".join(["red", "star", "on", "grass"][: 1 + row % 4]) for row in range(700)]
    heard: list[tuple[int, int]] = []
    together = text_embeddings(nano, texts, on_texts=lambda done, total: heard.append((done, total)))
    one_by_one = torch.cat([nano.embed_texts([text]) for text in texts[:4]])
    torch.testing.assert_close(together, one_by_one.repeat(175, 1), atol=1e-6, rtol=0)
    assert heard == [(0, 700), (512, 700), (700, 700)]


def test_masked_padding_changes_a_text_by_rounding_alone():
    from clippy_cli.model.store import load_model_directory

    model = load_model_directory("clippy-ti", device="cpu")
    texts = ["dog", "a photo of a dog that runs on the beach", "cat", "two children play football in the park"]
    together, alone = model.embed_texts(texts), torch.cat([model.embed_texts([text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("count", [0, 1])
def test_few_texts_make_no_progress(nano, count):
    heard: list[int] = []
    assert text_embeddings(nano, ["star"] * count, on_texts=lambda done, _: heard.append(done)).shape[0] == count
    assert heard == []
