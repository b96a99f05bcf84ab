"""Precision of the image tower: what it is, where it is named, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch

from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.evaluate import evaluate
from clippy_cli.evaluation.tasks.base import Options
from clippy_cli.model.precision import compile_model, precision_of, with_precision
from clippy_cli.model.sources.loading import load_model
from tests.fixtures.colour_model import ColourModel


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))


def test_bf16_is_near_float32_and_leaves_the_texts_and_the_model_alone(nano, images):
    half = with_precision(nano, "bf16")
    assert (precision_of(half), precision_of(nano)) == ("bf16", "fp32")
    texts = nano.embed_texts(["a red star"])
    assert torch.equal(half.embed_texts(["a red star"]), texts)
    for answers in (lambda m: m.embed_patches(images), lambda m: m.embed_images(images)):
        exact, near = answers(nano), answers(half)
        assert near.dtype == torch.float32 and not torch.equal(near, exact)
        assert torch.cosine_similarity(near, exact, dim=-1).min() > 0.99
    torch.testing.assert_close(half.score_images(images, texts), nano.score_images(images, texts), atol=0.05, rtol=0)


def test_auto_is_float32_to_the_last_bit(nano, images):
    assert torch.equal(with_precision(nano, "auto").embed_patches(images), nano.embed_patches(images))


def test_what_cannot_be_had_is_refused(nano):
    with pytest.raises(ClippyError, match="--precision cannot be 'int8'"):
        with_precision(nano, "int8")
    with pytest.raises(ClippyError, match="float32 only"):
        with_precision(ColourModel(), "bf16")
    with pytest.raises(ClippyError, match="cannot be compiled"):
        compile_model(ColourModel())


def test_no_compiler_is_said_before_the_first_image(monkeypatch):
    monkeypatch.setattr("clippy_cli.model.compat.torch.compiler_complaint", lambda: "no g++")
    with pytest.raises(ClippyError, match=r"needs a C\+\+ compiler.*no g"):
        load_model("clippy-ti", device="cpu", compiled=True)


def test_results_name_it(nano):
    found = evaluate("scenes", with_precision(nano, "bf16"), options=Options(limit=2))
    assert {(result.model.precision, result.model.compiled) for result in found.results} == {("bf16", False)}
