"""``--model`` as it is written on the command line -> a model, whichever source it comes from; and what there is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clippy_cli.errors import ClippyError
from clippy_cli.model.choices import AUTO, DenseMode
from clippy_cli.model.sources.registry import OWN, Listed, ListsTextFiles, find_source, source_names

if TYPE_CHECKING:
    from clippy_cli.model.base import VisionLanguageModel

_PROXY_EXAMPLE = "--proxy timm:vit_base_patch16_224.dino"


@dataclass(frozen=True)
class Listing:
    """What ``clippy models`` shows: models by source, and why an installed package's source could not be asked."""

    models: list[Listed]
    failures: list[ClippyError]


def list_models(*, everything: bool = False) -> Listing:
    """The models that each source names, without a network; ``everything`` adds long lists, such as open_clip's."""
    listing = Listing([], [])
    for prefix in source_names():
        try:
            listing.models.extend(find_source(prefix).examples(everything=everything))
        except ClippyError as error:
            listing.failures.append(error)
    return listing


def split_source(source: str) -> tuple[str, str]:
    """``open_clip:ViT-B-16/openai`` -> ("open_clip", "ViT-B-16/openai"); names and directories are of kind clippy."""
    kind, colon, name = source.partition(":")
    if not colon or kind == OWN or kind not in source_names():
        return OWN, source
    if not name:
        raise ClippyError(f"--model {source} names no model after the colon.", "clippy models lists examples.")
    return kind, name


def check_source(source: str, *, texts: bool = False, dense: str | None = None, proxy: str | None = None) -> None:
    """ClippyError where it is plain without loading that :func:`load_model` cannot serve, or no ``texts`` are read."""
    kind, name = split_source(source)
    _settled_mode(source, dense, proxy)
    if proxy is not None:
        check_source(proxy)
    find_source(kind).check(name, texts=texts)


def load_model(
    source: str,
    *,
    device: str = "auto",
    dense: str | None = None,
    proxy: str | None = None,
    positions: str | None = None,
    precision: str = AUTO,
    compiled: bool = False,
) -> VisionLanguageModel:
    """A model in evaluation mode, its weights in float32.

    Args:
        source: a shipped name, a directory or a run folder; ``open_clip:ARCH/TAG``, ``open_clip:ARCH/FILE``,
            ``hf:NAME_OR_FOLDER``, ``timm:NAME`` or ``timm:NAME@FILE``, ``dinotxt:NAME`` or ``dinotxt:FILES``,
            ``talk2dino:FILE``, ``clip-dinoiser:FILE``;
            ``PREFIX:NAME`` of an installed package.
        device: auto, cpu, cuda, cuda:N or mps.
        dense: a :class:`~clippy_cli.model.dense.DenseMode`; None is plain, or proxyclip where a proxy is given.
        proxy: source of the model whose patches steer the attention.
        positions: how the position table is resampled to other grids; None for the model's own way.
        precision: of the image tower, auto, fp32 or bf16 (see ``model/precision.py``).
        compiled: whether torch compiles the image tower, which takes up to a minute at the first image.

    Raises:
        ClippyError: no such model; weights that are not at hand, with the file's name and the way to pass a copy;
            patches that this model cannot give in this mode.
    """
    from clippy_cli.model.device import resolve_device

    kind, name = split_source(source)
    mode = _settled_mode(source, dense, proxy)
    steering = None if proxy is None else load_model(proxy, device=device, precision=precision)
    model = find_source(kind).load(name, resolve_device(device))
    if precision != AUTO or compiled:
        from clippy_cli.model.precision import compile_model, with_precision

        model = with_precision(model, precision)
        if compiled:
            compile_model(model)
    if mode is DenseMode.PLAIN and positions is None:
        return model
    from clippy_cli.model.patch_forms import with_dense_mode, with_positions

    return with_dense_mode(model if positions is None else with_positions(model, positions), mode, steering)


def text_files(source: str) -> dict[str, Path] | None:
    """The files that decide what the model ``source`` makes of a text, by names for them, without loading any.

    None where its kind of source does not say. ClippyError where there is no such model.
    """
    kind, name = split_source(source)
    found = find_source(kind)
    files = found.text_files(name) if isinstance(found, ListsTextFiles) else None
    return None if files is None else {f"{kind}/{part}": path for part, path in files.items()}


def _settled_mode(source: str, dense: str | None, proxy: str | None) -> DenseMode:
    mode = dense or (DenseMode.PLAIN if proxy is None else DenseMode.PROXYCLIP)
    if mode not in list(DenseMode):
        raise ClippyError(f"--dense cannot be {mode!r}.", f"Choose among {', '.join(DenseMode)}.")
    if mode == DenseMode.PROXYCLIP and proxy is None:
        raise ClippyError("--dense proxyclip needs the model that steers it.", f"Add {_PROXY_EXAMPLE}.")
    if proxy is not None and mode != DenseMode.PROXYCLIP:
        raise ClippyError(f"--proxy steers --dense proxyclip; --dense {mode} takes none.", "Leave one of them out.")
    kind = split_source(source)[0]
    if mode != DenseMode.PLAIN and not find_source(kind).takes_dense:
        raise ClippyError(
            f"--dense {mode} cannot be had of {source}: models of {kind}: give their patches in one way only.",
            "Leave --dense and --proxy out, or take the same weights from open_clip (clippy models lists them).",
        )
    return DenseMode(mode)
