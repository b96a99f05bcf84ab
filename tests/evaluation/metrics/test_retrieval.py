import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clippy_cli.evaluation.metrics import retrieval
from clippy_cli.evaluation.metrics.retrieval import pooled_recalls, recalls_by_image


def recall_at_k(scores, owner, ks):
    """The recalls that results report; images without a caption are not sought."""
    found = pooled_recalls(recalls_by_image(scores, owner, ks))
    return {way: {k: found[f"{way}_r{k}"] for k in ks} for way in ("image_to_text", "text_to_image")}


def loops(scores, owner, k):
    """The protocol said plainly, whatever is sought sorted behind its equals."""
    scores, owner = scores.tolist(), owner.tolist()
    images, captions = range(len(scores)), range(len(owner))
    by_image = []
    for image in images:
        order = sorted(captions, key=lambda c: (-scores[image][c], owner[c] == image))
        if image in owner:
            by_image.append(any(owner[c] == image for c in order[:k]))
    by_caption = []
    for c in captions:
        order = sorted(images, key=lambda image: (-scores[image][c], owner[c] == image))
        by_caption.append(owner[c] in order[:k])
    return sum(by_image) / len(by_image), sum(by_caption) / len(by_caption)


@given(
    st.integers(1, 7), st.integers(1, 12), st.integers(1, 20), st.integers(0, 2**31), st.sampled_from([1, 20, 2**22])
)
@settings(max_examples=60, deadline=None)
def test_agrees_with_plain_loops(images, captions, levels, seed, chunk):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, levels, (images, captions), generator=generator).float()  # few levels: many ties
    owner = torch.randint(0, images, (captions,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_CHUNK", chunk)
        found = recall_at_k(scores, owner, (1, 3))
    for k in (1, 3):
        expected = loops(scores, owner, k)
        assert (found["image_to_text"][k], found["text_to_image"][k]) == pytest.approx(expected)


def test_any_caption_of_an_image_will_do():
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4]])
    found = recall_at_k(scores, torch.tensor([0, 0, 1]), (1, 2))
    assert found == {"image_to_text": {1: 1.0, 2: 1.0}, "text_to_image": {1: 1 / 3, 2: 1.0}}


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_constant_model_finds_nothing(value):
    found = recall_at_k(torch.full((20, 40), value), torch.arange(40) // 2, (1, 10))
    assert found == {"image_to_text": {1: 0.0, 10: 0.0}, "text_to_image": {1: 0.0, 10: 0.0}}


def test_an_empty_set_and_images_without_captions_have_no_recall():
    nothing = torch.zeros(0, dtype=torch.int64)
    assert pooled_recalls(recalls_by_image(torch.zeros(0, 0), nothing, (1,))) == {}
    assert pooled_recalls(recalls_by_image(torch.zeros(2, 0), nothing, (1,))) == {}


@pytest.mark.parametrize("owner", [[0, 2], [-1, 0], [0]])
def test_owners_must_be_images(owner):
    with pytest.raises(ValueError, match="one of 2 images for each of 2 captions"):
        recall_at_k(torch.zeros(2, 2), torch.tensor(owner), (1,))
