"""``--model`` as it is written on the command line -> a model, whichever library it comes from."""

from __future__ import annotations

from typing import Literal, cast

from clippy_cli.errors import ClippyError
from clippy_cli.model import store
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.dense import MODES, with_dense_mode
from clippy_cli.model.device import resolve_device
from clippy_cli.model.sources import open_clip_model, timm_trunk, transformers_model
from clippy_cli.model.sources.face import Dense

Kind = Literal["clippy", "open_clip", "hf", "timm"]
_PREFIXED = ("open_clip", "hf", "timm")
_PROXY_EXAMPLE = "--proxy timm:vit_base_patch16_224.dino"


def split_source(source: str) -> tuple[Kind, str]:
    """``open_clip:ViT-B-16/openai`` -> ("open_clip", "ViT-B-16/openai"); names and directories are of kind clippy."""
    kind, colon, name = source.partition(":")
    if not colon or kind not in _PREFIXED:
        return "clippy", source
    if not name:
        raise ClippyError(f"--model {source} names no model after the colon.", "clippy models lists examples.")
    return cast(Kind, kind), name


def check_source(source: str, *, texts: bool = False, dense: str | None = None, proxy: str | None = None) -> None:
    """ClippyError where it is plain without loading that :func:`load_model` cannot serve, or no ``texts`` are read."""
    kind, name = split_source(source)
    _settled_mode(source, dense, proxy)
    if proxy is not None:
        check_source(proxy)
    if kind == "timm":
        timm_trunk.check(name)
        if texts:
            raise timm_trunk.no_texts(name)
    elif kind == "open_clip":
        open_clip_model.check(name)
    elif kind == "hf":
        transformers_model.check(name)
    else:
        store.find_model(name)


def load_model(
    source: str, *, device: str = "auto", dense: str | None = None, proxy: str | None = None
) -> VisionLanguageModel:
    """A model in evaluation mode, in float32.

    Args:
        source: a shipped name, a directory or a run folder; ``open_clip:ARCH/TAG``, ``open_clip:ARCH/FILE``,
            ``hf:NAME_OR_FOLDER``, ``timm:NAME`` or ``timm:NAME@FILE``.
        device: auto, cpu, cuda, cuda:N or mps.
        dense: one of ``clippy_cli.model.dense.MODES``; None is the plain one, or proxyclip where a proxy is given.
        proxy: source of the model whose patches steer the attention.

    Raises:
        ClippyError: no such model; weights that are not at hand, with the file's name and the way to pass a copy;
            patches that this model cannot give in this mode.
    """
    kind, name = split_source(source)
    mode = _settled_mode(source, dense, proxy)
    target = resolve_device(device)
    steering = None if proxy is None else load_model(proxy, device=device)
    if kind == "clippy":
        model = store.load_model(name, device=device)
        return with_dense_mode(model, mode, steering) if isinstance(model, Clippy) else model
    if kind == "hf":
        return transformers_model.load(name, target)
    if kind == "timm":
        return timm_trunk.load(name, target, Dense(mode, steering))
    return open_clip_model.load(name, target, Dense(mode, steering))


def _settled_mode(source: str, dense: str | None, proxy: str | None) -> str:
    mode = dense or ("plain" if proxy is None else "proxyclip")
    if mode not in MODES:
        raise ClippyError(f"--dense cannot be {mode!r}.", f"Choose among {', '.join(MODES)}.")
    if mode == "proxyclip" and proxy is None:
        raise ClippyError("--dense proxyclip needs the model that steers it.", f"Add {_PROXY_EXAMPLE}.")
    if proxy is not None and mode != "proxyclip":
        raise ClippyError(f"--proxy steers --dense proxyclip; --dense {mode} takes none.", "Leave one of them out.")
    if mode != "plain" and split_source(source)[0] == "hf":
        raise ClippyError(
            f"--dense {mode} cannot be had of {source}, a model of transformers.",
            "Leave --dense and --proxy out, or take the same weights from open_clip (clippy models lists them).",
        )
    return mode
