"""A folder that ``open_clip.create_model("local-dir:FOLDER")`` loads, for the models that open_clip can express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clippy_cli.errors import ClippyError
from clippy_cli.export.open_clip_vit import vit_config, vit_obstacles, vit_state
from clippy_cli.export.parity import (
    Difference,
    ExportReport,
    difference,
    file_sizes,
    refuse_model_folder,
    require_parity,
    sample_images,
    sample_texts,
)
from clippy_cli.files import json_text, whole_folder
from clippy_cli.model.choices import Pooling
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.compat.open_clip import text_fields
from clippy_cli.model.image_tower import ImageTower
from clippy_cli.model.rotary_tower import RotaryTower
from clippy_cli.model.vit_tower import VitTower
from clippy_cli.model.weight_files import write_checksums

LIMIT = 1e-5
CONFIG_FILE, WEIGHTS_FILE, ENCODER_FOLDER = "open_clip_config.json", "open_clip_model.safetensors", "text_encoder"


def export_open_clip(model: Clippy, out: Path, *, overwrite: bool = False) -> ExportReport:
    """Write a folder whose image and text embeddings, read back by open_clip, are the model's to within ``LIMIT``.

    Images are taken at the native resolution, the only one that open_clip's position table is for. A Hugging Face text
    encoder's configuration is named by its absolute path, since open_clip knows no other way without a network.
    With ``overwrite`` files of the same names are replaced in a folder that is not empty. ClippyError names all that
    open_clip cannot express.
    """
    refuse_model_folder(out)
    _require_expressible(model)
    model = model.to("cpu").eval()
    with whole_folder(out, overwrite=overwrite) as folder, torch.no_grad():
        state = {name: value.detach().clone().contiguous() for name, value in _state(model).items()}
        save_file(state, folder / WEIGHTS_FILE)
        model.text.save_tokenizer(folder)
        if model.config.text.kind == "hugging_face":
            _write_json(folder / ENCODER_FOLDER / "config.json", _encoder_fields(model))
        _write_json(folder / CONFIG_FILE, _config(model, folder))
        differences = _differences(model, folder)
        require_parity(differences, LIMIT)
        _write_json(folder / CONFIG_FILE, _config(model, out))
        write_checksums(folder, but=(CONFIG_FILE,))  # which is corrected where the folder is moved
    moved = f"Where the folder is moved, correct text_cfg.hf_model_name in {CONFIG_FILE}: open_clip wants a full path."
    notes = (moved,) if model.config.text.kind == "hugging_face" else ()
    return ExportReport(out, file_sizes(out), LIMIT, differences, notes)


def _require_expressible(model: Clippy) -> None:
    tower = model.image
    match tower:
        case VitTower():
            found = vit_obstacles(tower)
        case RotaryTower():
            found = [f"{tower.config.trunk}, a trunk with rotary positions and prefix tokens of its own"]
        case _:
            found = _conv_obstacles(tower)
    if model.config.inference.centre_patches:
        found.append("centred patch embeddings (inference.centre_patches)")
    if model.config.inference.affinity_block is not None:
        found.append("patches that share embeddings by affinity (inference.affinity_block)")
    if model.config.text.kind == "open_clip":
        unknown = set(model.config.text.encoder) - text_fields()
        found += [f"text.encoder.{name}" for name in sorted(unknown)]
    if found:
        raise ClippyError(
            f"open_clip cannot express {model.name}:\n" + "\n".join(f"  {obstacle}" for obstacle in found),
            "Use clippy export onnx, which takes every architecture of clippy.",
        )


def _conv_obstacles(tower: ImageTower) -> list[str]:
    config = tower.config
    found = []
    if config.pooling != Pooling.AVG:
        found.append(f"{config.pooling} pooling of a convolutional trunk: the mean alone")
    if config.projection == "mlp":
        found.append("an mlp projection of each token: open_clip's comes after pooling")
    if config.trunk_args:
        found.append(f"arguments of timm's constructor (image.trunk_args: {', '.join(config.trunk_args)})")
    return found


def _config(model: Clippy, home: Path) -> dict[str, Any]:
    config, tower = model.config, model.image
    if isinstance(tower, VitTower):
        vision = vit_config(model, tower)
    else:
        vision = {
            "image_size": model.preprocess.resolution,
            "timm_model_name": config.image.trunk,
            "timm_pool": "avg",
            "timm_proj": "linear",
        }
    text: dict[str, Any] = {"context_length": config.text.context_length}
    if config.text.kind == "open_clip":
        text |= config.text.encoder
    else:
        text |= {
            "hf_model_name": str((home / ENCODER_FOLDER).absolute()),
            "hf_tokenizer_name": str(home.absolute()),
            "hf_proj_type": "linear" if config.text.projection == "linear" else None,
            "hf_pooler_type": "mean_pooler",
        }
    return {
        "model_cfg": {"embed_dim": config.embed_dim, "custom_text": True, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {
            "mean": model.preprocess.mean,
            "std": model.preprocess.std,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def _encoder_fields(model: Clippy) -> dict[str, Any]:
    """The encoder's configuration; T5's under the name of multilingual T5, whose code is the same and open_clip has."""
    found: dict[str, Any] = model.text.encoder.config.to_dict()
    return found | {"model_type": "mt5", "architectures": ["MT5Model"]} if found["model_type"] == "t5" else found


def _state(model: Clippy) -> dict[str, Tensor]:
    tower, text = model.image, model.text
    width = model.config.embed_dim
    if isinstance(tower, VitTower):
        visual = vit_state(model, tower) | {"proj": _matrix(tower.projection, width).T}  # (F,D)
    else:
        visual = {f"trunk.{name}": value for name, value in tower.trunk.state_dict().items()}
        visual["head.proj.weight"] = _matrix(tower.projection, width)
    words = dict(text.encoder.state_dict())
    if model.config.text.kind == "open_clip":
        words["text_projection"] = _matrix(text.projection, width).T  # (F,D)
    elif model.config.text.projection == "linear":
        words["proj.weight"] = _matrix(text.projection, width)
    return {
        "logit_scale": model.log_logit_scale,
        **{f"visual.{name}": value for name, value in visual.items()},
        **{f"text.{name}": value for name, value in words.items()},
    }


def _matrix(projection: nn.Module, width: int) -> Tensor:
    """A bias-free linear layer's weight (D,F), or the unit matrix for a tower that has none."""
    return projection.weight if isinstance(projection, nn.Linear) else torch.eye(width)


def _differences(model: Clippy, folder: Path) -> tuple[Difference, ...]:
    """The model against what open_clip makes of the folder, its tokenizer included."""
    name = f"local-dir:{folder}"
    try:
        other = open_clip.create_model(name).eval()
        tokenize = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip passes on what json, timm, transformers and torch raise
        raise ClippyError(
            f"open_clip {open_clip.__version__} cannot load the export, so nothing was written: {error}",
            "Try another version of open_clip, or clippy export onnx.",
        ) from error
    found = []
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.preprocess.mean, model.preprocess.std))
    for batch in (1, 2):
        side = model.preprocess.resolution
        images = (sample_images(batch, side, side) - mean) / std
        found.append(
            difference("images", images, other.encode_image(images, normalize=True), model.embed_images(images))
        )
    texts = sample_texts()
    for chosen in (texts[:1], texts[1:], texts):
        token_ids = tokenize(chosen)
        exported = other.encode_text(token_ids, normalize=True)
        found.append(difference("texts", token_ids, exported, model.embed_texts(chosen)))
    return tuple(found)


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json_text(document) + "\n", encoding="utf-8")
