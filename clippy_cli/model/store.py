"""Model directories: ``config.json``, ``model.safetensors`` and tokenizer files, loaded without a network."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from clippy_cli.errors import ClippyError, first_line
from clippy_cli.files import json_text, whole_folder
from clippy_cli.model.assembly import Extent, assemble
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.device import resolve_device
from clippy_cli.model.registry import CONFIG_FILE, find_model, parse_model_config
from clippy_cli.model.weight_files import check_filled, check_finite, read_small_json, verify_checksums, write_checksums

WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FOLDER = "tokenizer"
FORMAT = 1
logger = logging.getLogger(__name__)


def save_model(model: Clippy, directory: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write a model directory; an older one of that name is replaced only when the new one is whole.

    ``dtype`` converts floating-point tensors, for shipping; None keeps them, so that reloading is bit-equal.
    """
    directory = Path(directory)
    with whole_folder(directory, replace=True) as staging:
        state = {name: _stored(value, dtype) for name, value in model.state_dict().items()}
        try:
            save_file(state, staging / WEIGHTS_FILE)
        except SafetensorError as error:
            raise ClippyError(
                f"Cannot write a model to {directory}: {error}", "Free some space, or choose another folder."
            ) from error
        config = {"format": FORMAT, **model.config.model_dump(mode="json")}
        (staging / CONFIG_FILE).write_text(json_text(config) + "\n", encoding="utf-8")
        model.text.save_tokenizer(staging / TOKENIZER_FOLDER)
        (staging / WEIGHTS_FILE).chmod(0o644)
        write_checksums(staging)


def load_model_directory(source: str, *, device: str = "auto") -> VisionLanguageModel:
    """A model in evaluation mode, in float32.

    Args:
        source: a shipped model's name, a model directory, or a run folder that holds ``model/``.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    target = resolve_device(device)
    folder = find_model(source)
    model = load_directory(folder).to(target).eval()
    size = sum(parameter.numel() for parameter in model.parameters())
    logger.info("model %s: %s, %.1f million parameters, on %s", source, folder, size / 1e6, target)
    return model


def load_directory(directory: Path) -> Clippy:
    """Read one model directory on the CPU; ClippyError names what is missing, broken or does not fit."""
    fields = read_small_json(directory / CONFIG_FILE)
    written = fields.pop("format", None) if isinstance(fields, dict) else None
    if written != FORMAT:
        raise ClippyError(
            f"{directory / CONFIG_FILE} has format {written!r}; this clippy reads {FORMAT}.", "Use a matching clippy."
        )
    config = parse_model_config(fields, where=str(directory / CONFIG_FILE))
    weights = directory / WEIGHTS_FILE
    if not weights.is_file():
        raise ClippyError(f"{directory} lacks {WEIGHTS_FILE}.", "Copy the whole folder, or train again.")
    verify_checksums(directory)
    state = _read_state(weights)
    model = assemble(
        config,
        str(directory / TOKENIZER_FOLDER),
        where=str(directory / CONFIG_FILE),
        extent=Extent.of(state, "its weights"),
        bare=True,
    )
    for name, own in model.state_dict().items():
        if own.is_floating_point() and name in state and not state[name].is_floating_point():
            raise ClippyError(f"{weights} does not fit {directory / CONFIG_FILE}: {name} holds whole numbers.")
    try:
        model.load_state_dict(state, assign=any(value.is_meta for value in model.parameters()))
    except RuntimeError as error:
        raise ClippyError(f"{weights} does not fit {directory / CONFIG_FILE}: {error}") from error
    return model


def _read_state(weights: Path) -> dict[str, torch.Tensor]:
    """The tensors, floating-point ones in float32; ClippyError where the file is damaged or a value is not finite."""
    try:
        state = load_file(weights)
    except Exception as error:  # safetensors, and torch where a type of the header is none of its own
        raise ClippyError(f"{weights} is damaged: {first_line(error)}", "Copy it again, or train again.") from error
    state = {
        name: value.to(torch.float32, copy=True) if value.is_floating_point() else value
        for name, value in state.items()
    }
    check_finite(state.items(), str(weights))
    check_filled(state.items(), str(weights))
    return state


def _stored(value: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    value = value.detach().to("cpu")
    return (value.to(dtype) if dtype is not None and value.is_floating_point() else value).contiguous()
