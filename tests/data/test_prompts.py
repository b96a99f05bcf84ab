"""Templates, articles, and the mean embedding over templates against plain arithmetic."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clippy_cli.data.prompts import fill, prompt_embeddings, resolve_templates, template_names
from clippy_cli.errors import ClippyError


class HashedTexts:
    """Embeds each text as a unit vector that depends on nothing but the text."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        seeds = (torch.Generator().manual_seed(zlib.crc32(text.encode())) for text in texts)
        return F.normalize(torch.stack([torch.randn(16, generator=seed) for seed in seeds]), dim=-1)


@pytest.mark.parametrize(
    ("noun", "text"),
    [("dog", "a photo of a dog"), ("apple", "a photo of an apple"), ("Umbrella", "a photo of an Umbrella")],
)
def test_photo_set_chooses_the_article(noun: str, text: str) -> None:
    (template,) = resolve_templates("photo")
    assert fill(template, noun) == text


def test_nouns_are_put_in_as_they_are() -> None:
    assert fill("{} seen from afar", "{0} a/an {}") == "{0} a/an {} seen from afar"
    assert fill("a/an {}", "%s {x.__class__}") == "a %s {x.__class__}"
    assert fill(*resolve_templates("none"), "sky") == "sky"


@pytest.mark.parametrize(("name", "count"), [("none", 1), ("photo", 1), ("simple", 7), ("openai", 80)])
def test_named_sets(name: str, count: int) -> None:
    templates = resolve_templates(name)
    assert name in template_names()
    assert len(set(templates)) == count
    assert all(fill(template, "kite").count("kite") == 1 for template in templates)


def test_open_clip_sets_say_what_open_clip_says() -> None:
    import open_clip

    filled = tuple(fill(template, "owl") for template in resolve_templates("openai"))
    assert filled == tuple(template("owl") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)


@pytest.mark.parametrize("spec", ["{", "{}{}", "{} and {}", "{name}", "{{}}", "{}}", "{0}", "a {!r}"])
def test_literal_templates_hold_one_slot_and_no_other_brace(spec: str) -> None:
    with pytest.raises(ClippyError, match="exactly once"):
        resolve_templates(spec)
    assert resolve_templates("one {} only") == ("one {} only",)


def test_unknown_sets_suggest_a_name() -> None:
    with pytest.raises(ClippyError, match="did you mean 'photo'"):
        resolve_templates("foto")


@pytest.mark.parametrize("count", [2, 300])
def test_prompt_embeddings_are_the_normalised_mean_over_templates(count: int) -> None:
    model: Any = HashedTexts()
    names, templates = [f"thing {index}" for index in range(count)], ["a {}", "the {}", "{}"]
    embeddings = prompt_embeddings(model, names, templates)
    assert embeddings.shape == (count, 16)
    for row in (0, count - 1):
        mean = model.embed_texts([template.replace("{}", names[row]) for template in templates]).mean(0)
        torch.testing.assert_close(embeddings[row], mean / mean.norm())
