"""Prompt templates, and the mean embedding of a word over them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from clippy_cli.data.text_cache import ComparedWith, TextCache, TextRequest
from clippy_cli.errors import ClippyError, as_unicode
from clippy_cli.model.base import MeansOfPrompts, VisionLanguageModel, embed_patch_texts
from clippy_cli.model.device import device_name

OnTexts = Callable[[int, int], object]  # called with the texts embedded so far, and all of them

_PART = 512  # texts between two calls of OnTexts
_SLOT = "{}"
_ARTICLE_SLOT = "a/an {}"
_OWN_SETS = {"none": (_SLOT,), "photo": (f"a photo of {_ARTICLE_SLOT}",)}
_OPEN_CLIP_SETS = {"simple": "SIMPLE_IMAGENET_TEMPLATES", "openai": "OPENAI_IMAGENET_TEMPLATES"}


def unheard(done: int, total: int) -> None:
    """Nobody waits for texts."""


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


def prompt_embeddings(
    model: VisionLanguageModel,
    names: Sequence[str],
    templates: Sequence[str],
    *,
    cache: TextCache | None = None,
    on_texts: OnTexts = unheard,
) -> Tensor:
    """K names, T templates -> (K,D), for images: the mean of a name's T unit vectors, scaled to unit norm.

    A model with a rule of its own (:class:`~clippy_cli.model.base.MeansOfPrompts`) goes by that. What ``cache`` holds
    is not computed again; else ``on_texts`` is called as texts are embedded.
    """
    return _means(model, names, templates, "images", cache, on_texts)


def patch_prompt_embeddings(
    model: VisionLanguageModel,
    names: Sequence[str],
    templates: Sequence[str],
    *,
    cache: TextCache | None = None,
    on_texts: OnTexts = unheard,
) -> Tensor:
    """As :func:`prompt_embeddings`, of the vectors that the model's patches are compared with."""
    return _means(model, names, templates, "patches", cache, on_texts)


def text_embeddings(
    model: VisionLanguageModel,
    texts: Sequence[str],
    *,
    cache: TextCache | None = None,
    on_texts: OnTexts = unheard,
) -> Tensor:
    """K texts as they are -> (K,D), unit norm, for images; ``cache`` and ``on_texts`` as above."""
    request = TextRequest(tuple(texts), None, "images")
    return _kept(cache, request, model, lambda: _in_parts(model.embed_texts, texts, on_texts))


def prompt_request(
    names: Sequence[str], templates: Sequence[str], compared_with: ComparedWith, device: str = "cpu"
) -> TextRequest:
    """What :func:`prompt_embeddings` or :func:`patch_prompt_embeddings` asks a cache for, known without a model."""
    texts = tuple(fill(template, name) for name in names for template in templates)
    return TextRequest(texts, len(templates), compared_with, device)


def _means(
    model: VisionLanguageModel,
    names: Sequence[str],
    templates: Sequence[str],
    compared_with: ComparedWith,
    cache: TextCache | None,
    on_texts: OnTexts,
) -> Tensor:
    request = prompt_request(names, templates, compared_with)
    texts, each = request.texts, len(templates)

    def compute() -> Tensor:
        if isinstance(model, MeansOfPrompts) and texts:
            means, part = [], each * max(1, _PART // each)
            for start in range(0, len(texts), part):
                on_texts(start, len(texts))
                means.append(model.embed_prompt_means(texts[start : start + part], each))
            on_texts(len(texts), len(texts))
            return torch.cat(means)
        embed = model.embed_texts if compared_with == "images" else partial(embed_patch_texts, model)
        vectors = _in_parts(embed, texts, on_texts).view(len(names), each, -1)  # (K*T,D) -> (K,T,D)
        return F.normalize(vectors.mean(dim=1), dim=-1)

    return _kept(cache, request, model, compute)


def _kept(
    cache: TextCache | None, request: TextRequest, model: VisionLanguageModel, compute: Callable[[], Tensor]
) -> Tensor:
    """What the cache holds for the model's device, or else what is computed now, which it then holds."""
    if cache is None or not request.texts:
        return compute()
    request = replace(request, device=device_name(model.device))
    known = cache.find(request)
    if known is not None:
        return torch.from_numpy(known.copy()).to(model.device)
    vectors = compute()
    if vectors.dtype == torch.float32:
        cache.keep(request, vectors.detach().cpu().contiguous().numpy())
    return vectors


def _in_parts(embed: Callable[[Sequence[str]], Tensor], texts: Sequence[str], on_texts: OnTexts) -> Tensor:
    """(K,D) in the order of K texts, which the model is given a part at a time, the shortest first."""
    if len(texts) <= _PART:
        return embed(texts)
    rows = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    parts = []
    for start in range(0, len(rows), _PART):
        on_texts(start, len(rows))
        parts.append(embed([texts[row] for row in rows[start : start + _PART]]))
    on_texts(len(rows), len(rows))
    vectors = torch.cat(parts)
    return torch.empty_like(vectors).index_copy_(0, torch.tensor(rows, device=vectors.device), vectors)


def _hint() -> str:
    names = ", ".join(template_names())
    return f"Choose one of {names}, or write a template such as 'an aerial photo of a/an {{}}'."
