"""Model directories: ``config.json``, ``model.safetensors`` and tokenizer files, loaded without a network."""

from __future__ import annotations

import logging
import math
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from clippy_cli.errors import ClippyError, first_line
from clippy_cli.files import json_text, whole_folder
from clippy_cli.model import bert
from clippy_cli.model.assembly import Extent, assemble, assemble_text
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.config import ModelConfig
from clippy_cli.model.device import resolve_device
from clippy_cli.model.registry import CONFIG_FILE, find_model, parse_model_config
from clippy_cli.model.text_tower import LaterText, TextTower
from clippy_cli.model.weight_files import check_filled, check_finite, read_small_json, verify_checksums, write_checksums

WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FOLDER = "tokenizer"
FORMAT = 1
_TEXT = "text."  # what names of the text tower's weights begin with
_MAPPED = 1 << 20  # values of a weight file at a time
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


def load_model_directory(source: str, *, device: str = "auto", texts_later: bool = False) -> VisionLanguageModel:
    """A model in evaluation mode, in float32.

    Args:
        source: a shipped model's name, a model directory, or a run folder that holds ``model/``.
        device: auto, cpu, cuda, cuda:N or mps.
        texts_later: put the text tower off until it is used, where that is quick; what is wrong with it is said then.
    """
    target = resolve_device(device)
    folder = find_model(source)
    model = load_directory(folder, texts_later=texts_later).to(target).eval()
    logger.info("model %s: %s, %.1f million parameters, on %s", source, folder, _size(folder) / 1e6, target)
    return model


def load_directory(directory: Path, *, texts_later: bool = False) -> Clippy:
    """Read one model directory on the CPU; ClippyError names what is missing, broken or does not fit.

    ``texts_later``: see :func:`load_model_directory`.
    """
    config = _read_config(directory)
    weights = directory / WEIGHTS_FILE
    if not weights.is_file():
        raise ClippyError(f"{directory} lacks {WEIGHTS_FILE}.", "Copy the whole folder, or train again.")
    verify_checksums(directory)
    later = None
    if texts_later and config.text.kind == "hugging_face" and bert.Shape.of(config.text.encoder) is not None:
        later = LaterText(partial(_load_text, directory, config, _identity(weights)))
    state = _read_state(weights, texts=None if later is None else False)
    extent, where = Extent.of(state, "its weights"), str(directory / CONFIG_FILE)
    model = assemble(config, _tokenizer(directory), where=where, extent=extent, bare=True, later=later)
    _give(model, state, directory)
    return model


def _load_text(directory: Path, config: ModelConfig, identity: tuple[int, ...]) -> TextTower:
    """The text tower of a directory whose other weights have been read before."""
    weights = directory / WEIGHTS_FILE
    if not weights.is_file() or _identity(weights) != identity:
        raise ClippyError(f"{weights} has changed since the model was loaded.", "Load the model again.")
    state = _read_state(weights, texts=True)
    extent, where = Extent.of(state, "its weights"), str(directory / CONFIG_FILE)
    tower = assemble_text(config, _tokenizer(directory), where=where, extent=extent)
    _give(tower, {name.removeprefix(_TEXT): value for name, value in state.items()}, directory)
    return tower


def _give(module: nn.Module, state: dict[str, torch.Tensor], directory: Path) -> None:
    """Load weights, all that the module has by now and no others; ClippyError where they do not fit."""
    does_not_fit = f"{directory / WEIGHTS_FILE} does not fit {directory / CONFIG_FILE}"
    own = nn.Module.state_dict(module)
    for name, value in own.items():
        if value.is_floating_point() and name in state and not state[name].is_floating_point():
            raise ClippyError(f"{does_not_fit}: {name} holds whole numbers.")
    try:
        nn.Module.load_state_dict(module, state, assign=any(value.is_meta for value in own.values()))
    except RuntimeError as error:
        raise ClippyError(f"{does_not_fit}: {error}") from error


def _read_config(directory: Path) -> ModelConfig:
    fields = read_small_json(directory / CONFIG_FILE)
    written = fields.pop("format", None) if isinstance(fields, dict) else None
    if written != FORMAT:
        raise ClippyError(
            f"{directory / CONFIG_FILE} has format {written!r}; this clippy reads {FORMAT}.", "Use a matching clippy."
        )
    return parse_model_config(fields, where=str(directory / CONFIG_FILE))


def _tokenizer(directory: Path) -> str:
    return str(directory / TOKENIZER_FOLDER)


def _identity(path: Path) -> tuple[int, ...]:
    """What another file under the same name would have different."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _size(directory: Path) -> int:
    """Values in the weight file."""
    with safe_open(directory / WEIGHTS_FILE, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no dictionary)


def _read_state(weights: Path, *, texts: bool | None) -> dict[str, torch.Tensor]:
    """The tensors, floating-point ones in float32; ClippyError where the file is damaged or a value is not finite.

    ``texts`` takes those of the text tower, or all others; None takes all. The largest come first, and the file is
    mapped anew for every few megabytes, since what is mapped and has been read counts as memory.
    """
    state: dict[str, torch.Tensor] = {}
    try:
        with safe_open(weights, framework="pt") as file:
            names = [name for name in file.keys() if texts is None or name.startswith(_TEXT) is texts]  # noqa: SIM118
            sizes = {name: math.prod(file.get_slice(name).get_shape()) for name in names}
        left = sorted(names, key=lambda name: -sizes[name])
        while left:
            with safe_open(weights, framework="pt") as file:
                mapped = 0
                while left and mapped < _MAPPED:
                    value = file.get_tensor(left[0])
                    kind = torch.float32 if value.is_floating_point() else value.dtype
                    state[left[0]] = value.to(kind, copy=True)
                    mapped += sizes[left.pop(0)]
    except Exception as error:  # safetensors, and torch where a type of the header is none of its own
        raise ClippyError(f"{weights} is damaged: {first_line(error)}", "Copy it again, or train again.") from error
    check_finite(state.items(), str(weights))
    check_filled(state.items(), str(weights))
    return {name: state[name] for name in names}


def _stored(value: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    value = value.detach().to("cpu")
    return (value.to(dtype) if dtype is not None and value.is_floating_point() else value).contiguous()
