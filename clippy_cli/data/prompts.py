"""Prompt templates, and the mean embedding of a word over them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from clippy_cli.errors import ClippyError, as_unicode
from clippy_cli.model.base import MeansOfPrompts, VisionLanguageModel, embed_patch_texts

_SLOT = "{}"
_ARTICLE_SLOT = "a/an {}"
_OWN_SETS = {"none": (_SLOT,), "photo": (f"a photo of {_ARTICLE_SLOT}",)}
_OPEN_CLIP_SETS = {"simple": "SIMPLE_IMAGENET_TEMPLATES", "openai": "OPENAI_IMAGENET_TEMPLATES"}


def template_names() -> tuple[str, ...]:
    """The named template sets: ``none``, ``photo`` (the paper's), and open_clip's ``simple`` (7), ``openai`` (80)."""
    return (*_OWN_SETS, *_OPEN_CLIP_SETS)


def resolve_templates(spec: str) -> tuple[str, ...]:
    """A set's name, or one template of the user's with exactly one ``{}`` -> templates for :func:`fill`.

    Write ``a/an {}`` in a template to have the article chosen. ClippyError on an unknown name or other braces.
    """
    spec = as_unicode(spec, "template")
    if spec in _OWN_SETS:
        return _OWN_SETS[spec]
    if spec in _OPEN_CLIP_SETS:
        import open_clip

        return tuple(template(_SLOT) for template in getattr(open_clip, _OPEN_CLIP_SETS[spec]))
    if "{" in spec or "}" in spec:
        if spec.count(_SLOT) != 1 or spec.count("{") != 1 or spec.count("}") != 1:
            raise ClippyError(f"The template {spec!r} must hold {{}} exactly once and no other brace", _hint())
        return (spec,)
    close = difflib.get_close_matches(spec, template_names(), n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    raise ClippyError(f"No template set is called {spec!r}{meant}", _hint())


def canonical_template(spec: str) -> str:
    """One name for a named set of one template and for its text: ``photo`` for "a photo of a/an {}"; else as it is."""
    return next((name for name, texts in _OWN_SETS.items() if texts == (spec,)), spec)


def fill(template: str, noun: str) -> str:
    """Put the noun into the template's ``{}``; ``a/an {}`` becomes "an" before the letters a, e, i, o, u, else "a".

    This is the rule of the paper's public code: it looks at the first letter only, so that plurals and mass nouns get
    an article too ("a photo of a grass").
    """
    article = "an" if noun[:1].lower() in tuple("aeiou") else "a"
    return template.replace(_ARTICLE_SLOT, f"{article} {_SLOT}").replace(_SLOT, noun)


def prompt_embeddings(model: VisionLanguageModel, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """K names, T templates -> (K,D), for images: the mean of a name's T unit vectors, scaled to unit norm.

    A model with a rule of its own (:class:`~clippy_cli.model.base.MeansOfPrompts`) goes by that.
    """
    return _mean_over_templates(model, model.embed_texts, names, templates)


def patch_prompt_embeddings(model: VisionLanguageModel, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """As :func:`prompt_embeddings`, of the vectors that the model's patches are compared with."""
    return _mean_over_templates(model, partial(embed_patch_texts, model), names, templates)


def _mean_over_templates(
    model: VisionLanguageModel,
    embed: Callable[[Sequence[str]], Tensor],
    names: Sequence[str],
    templates: Sequence[str],
) -> Tensor:
    texts = [fill(template, name) for name in names for template in templates]
    if isinstance(model, MeansOfPrompts) and texts:
        return model.embed_prompt_means(texts, len(templates))
    vectors = embed(texts).view(len(names), len(templates), -1)  # (K*T,D) -> (K,T,D)
    return F.normalize(vectors.mean(dim=1), dim=-1)


def _hint() -> str:
    names = ", ".join(template_names())
    return f"Choose one of {names}, or write a template such as 'an aerial photo of a/an {{}}'."
