"""A new model from an architecture, each tower initialised as the recipe says."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from clippy_cli.errors import ClippyError, first_line
from clippy_cli.model.assembly import assemble
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.compat import hub
from clippy_cli.model.compat.timm import fitted_state, pretrained_model
from clippy_cli.model.config import ImageTowerConfig, ModelConfig
from clippy_cli.model.image_tower import ImageTower
from clippy_cli.model.text_tower import TextTower
from clippy_cli.model.vit_tower import VitTower
from clippy_cli.model.weight_files import check_filled, check_finite, check_tensors, check_weight_file
from clippy_cli.regular_files import is_file, is_folder

logger = logging.getLogger(__name__)

DENSE_FILES = ("2_Dense/model.safetensors", "2_Dense/pytorch_model.bin")
_HEADS = ("head.", "fc_norm.", "classifier.")


def build_model(
    config: ModelConfig,
    *,
    image_init: str = "random",
    text_init: str = "random",
    tokenizer: str | None = None,
    seed: int = 0,
) -> Clippy:
    """A model with fresh projections and towers initialised as asked.

    Args:
        config: the architecture.
        image_init: ``random``, ``pretrained`` (the architecture's timm weights) or a weight file in timm's layout.
        text_init: ``random``, ``pretrained`` (the architecture's Hugging Face name) or a folder in that layout.
        tokenizer: folder or Hugging Face name; None takes it from where the text weights come.
        seed: of every random weight; the global generator is left alone.

    Raises:
        ClippyError: weights that cannot be found, with what was wanted and how to pass a local path.
    """
    if tokenizer is None and config.text.kind == "hugging_face":
        tokenizer = config.text.pretrained_tag if text_init in ("random", "pretrained") else text_init
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = assemble(config, tokenizer, where=f"The architecture {config.name}")
    if image_init != "random":
        load_trunk(model.image, image_init)
    if text_init == "pretrained":
        if config.text.pretrained_tag is None:
            raise ClippyError(
                f"{config.name} names no pretrained text tower.", "Use model.text.init: random or a path."
            )
        _load_text(model.text, config.text.pretrained_tag)
    elif text_init != "random":
        folder = Path(text_init).expanduser()
        if not is_folder(folder):
            raise ClippyError(
                f"model.text.init is {text_init!r}, which is not a directory.",
                "Give random, pretrained, or a folder that holds config.json, weights and tokenizer files.",
            )
        _load_text(model.text, str(folder))
    return model


def load_trunk(tower: ImageTower, init: str) -> None:
    """Give the tower's trunk the weights that ``init`` names: ``pretrained``, or a weight file in timm's layout.

    ClippyError where they cannot be found or do not fit.
    """
    if init == "pretrained":
        source = pretrained_trunk(tower.config)
        _load_trunk_state(tower, source.state_dict(), str(tower.config.pretrained_tag))
    else:
        path = Path(init).expanduser()
        _load_trunk_state(tower, read_weights(path, "model.image.init"), str(path))


def pretrained_trunk(config: ImageTowerConfig, *, with_classifier: bool = False) -> nn.Module:
    """timm's model with the weights that the architecture names; ClippyError where they cannot be had.

    With a classifier only where these weights have one: timm would draw one of another size at random.
    """
    tag = config.pretrained_tag
    if tag is None:
        raise ClippyError("The architecture names no pretrained trunk.", "Use model.image.init: random or a file.")
    try:
        return pretrained_model(tag, num_classes=None if with_classifier else 0)
    except Exception as error:  # the hub's client raises many types: no network, no such name, a broken cache
        raise ClippyError(
            f"The image tower wants timm's weights {tag} from the Hugging Face hub, which gave none: "
            f"{first_line(error)}",
            "Download them elsewhere and pass the file: --set model.image.init=/path/to/model.safetensors",
        ) from error


def _load_trunk_state(tower: ImageTower, state: dict[str, Tensor], where: str) -> None:
    state = {name: value.float() for name, value in state.items()}
    try:
        filtered = fitted_state(tower.trunk, state)
        result = tower.trunk.load_state_dict(
            {name: value for name, value in filtered.items() if not name.startswith(_HEADS)},
            strict=False,
        )
    except RuntimeError as error:
        raise ClippyError(f"The weights of {where} do not fit {tower.config.trunk}: {first_line(error)}") from error
    if result.unexpected_keys and not isinstance(tower, VitTower):  # files of vision transformers often hold more
        raise ClippyError(
            f"{where} holds {len(result.unexpected_keys)} tensors that {tower.config.trunk} lacks, "
            f"{', '.join(result.unexpected_keys[:3])} among them.",
            f"Pass weights of timm's {tower.config.trunk}.",
        )
    if result.missing_keys:
        raise ClippyError(
            f"{where} lacks {len(result.missing_keys)} tensors of {tower.config.trunk}, "
            f"{', '.join(result.missing_keys[:3])} among them.",
            f"Pass weights of timm's {tower.config.trunk}.",
        )


def _load_text(tower: TextTower, source: str) -> None:
    if tower.config.kind != "hugging_face":
        raise ClippyError("An open_clip text tower starts from random weights.", "Set model.text.init: random.")
    from clippy_cli.model.compat.transformers import encoder_weights

    try:
        weights = encoder_weights(source)
    except Exception as error:  # as above: whatever transformers and the hub's client raise
        raise ClippyError(
            f"The text tower wants {source} (a local folder or a Hugging Face name), which gave no weights: "
            f"{first_line(error)}",
            "Download it elsewhere and pass the folder: --set model.text.init=/path/to/folder",
        ) from error
    try:
        tower.encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise ClippyError(f"The weights of {source} do not fit the text encoder: {first_line(error)}") from error
    if tower.config.projection == "linear":
        dense = _sentence_transformer_dense(source)
        if dense is None:
            logger.info(
                "%s has no dense layer after its pooling; the text projection starts from random weights", source
            )
        else:
            _load_dense(tower, dense, source)


def _load_dense(tower: TextTower, dense: dict[str, Tensor], source: str) -> None:
    weight = dense.get("linear.weight")
    expected = tower.projection.get_parameter("weight")
    if weight is None or len(dense) != 1 or weight.shape != expected.shape:
        found = {name: tuple(value.shape) for name, value in dense.items()}
        raise ClippyError(
            f"The dense layer of {source} holds {found}; wanted linear.weight of shape {tuple(expected.shape)} alone."
        )
    with torch.no_grad():
        expected.copy_(weight)


def _sentence_transformer_dense(source: str) -> dict[str, Tensor] | None:
    """The layer that sentence-transformers keep after the pooling, in a folder that transformers does not read."""
    if is_folder(Path(source)):
        found = [Path(source) / name for name in DENSE_FILES if is_file(Path(source) / name)]
        return read_weights(found[0], "model.text.init") if found else None
    try:
        with hub.hub_session() as local:
            return read_weights(hub.download(source, DENSE_FILES, local_files_only=local), "model.text.init")
    except hub.LocalEntryNotFoundError as error:
        raise ClippyError(
            f"{source} is cached, but whether it has a dense layer ({DENSE_FILES[0]}) cannot be asked without a "
            "network.",
            "Connect once, or pass a complete local folder: --set model.text.init=/path/to/folder",
        ) from error
    except hub.EntryNotFoundError:
        return None


def read_weights(path: Path, field: str, *, hint: str | None = None) -> dict[str, Tensor]:
    """Tensors of a safetensors or PyTorch file (``weights_only``); ClippyError names ``field``, of a recipe or else.

    ``hint`` says where to mend the path; None is the recipe's way. A damaged file, tensors that are larger than it, and
    values that are NaN or inf are errors too.
    """
    if not is_file(path):
        raise ClippyError(
            f"{field} is {str(path)!r}, and there is no such file.", hint or f"Check the path: --set {field}=FILE"
        )
    state = _read_state(path)
    for key in ("state_dict", "model_state_dict", "model", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ClippyError(f"{path} holds no dictionary of tensors.", "Save model.state_dict() and pass that file.")
    check_tensors(state, path)
    check_finite(state.items(), str(path))
    check_filled(state.items(), str(path))
    return state


def _read_state(path: Path) -> Any:
    """What the file holds, with no code of it run; ClippyError where it cannot be read so."""
    check_weight_file(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():  # torch speaks of pickle's protocol before it refuses one
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise ClippyError(f"{path} cannot be read as a weight file: {first_line(error)}") from error
    except Exception as error:  # code inside the file, refused by weights_only; torch's text advises to run it
        raise ClippyError(
            f"{path} holds more than tensors, or is no weight file, and is not loaded ({type(error).__name__}).",
            "Convert it to safetensors.",
        ) from error
