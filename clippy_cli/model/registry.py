"""Architectures by name, read from ``architectures/*.yaml``; model directories by name and path. Loads no torch."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clippy_cli.checked_yaml import read_yaml
from clippy_cli.errors import ClippyError
from clippy_cli.model.config import ModelConfig
from clippy_cli.regular_files import is_file, is_folder

CONFIG_FILE = "config.json"  # what makes a folder a model directory
_SHOWN = 20  # problems of a configuration
_LONGEST_SHOWN = 200  # characters of a name
_NAME_ON_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
ARCHITECTURES = Path(str(resources.files("clippy_cli.model") / "architectures"))
SHIPPED_MODELS = Path(str(resources.files("clippy_cli") / "assets" / "models"))


def architecture_names() -> tuple[str, ...]:
    """Names that :func:`load_architecture` knows, sorted."""
    return tuple(sorted(path.stem for path in ARCHITECTURES.glob("*.yaml")))


def shipped_models() -> dict[str, Path]:
    """Model directories inside the package, by name."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED_MODELS.glob(f"*/{CONFIG_FILE}"))}


def load_architecture(name_or_path: str) -> ModelConfig:
    """The configuration behind a registered name or your own YAML file; ClippyError where it is neither."""
    path = ARCHITECTURES / f"{name_or_path}.yaml"
    if name_or_path not in architecture_names():
        path = Path(name_or_path).expanduser()
        if path.suffix not in (".yaml", ".yml") or not path.is_file():
            raise ClippyError(
                f"No architecture {name_or_path!r}: no YAML file, and the names are {', '.join(architecture_names())}.",
                "Copy one of clippy_cli/model/architectures/*.yaml and give its path.",
            )
    return parse_model_config(read_yaml(path, "architecture")[1], where=str(path))


def parse_model_config(fields: Any, *, where: str) -> ModelConfig:
    """Check a mapping read from YAML or JSON; ClippyError names ``where`` and every field that is wrong."""
    try:
        return ModelConfig.model_validate(fields)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in problem['loc']) or '(whole file)'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        ]
        more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise ClippyError(f"{where} does not describe a model:\n" + "\n".join([*lines[:_SHOWN], *more])) from error


def find_model(source: str) -> Path:
    """The model directory behind a name or path; ClippyError lists what there is instead."""
    if not source.strip():
        raise ClippyError("--model names no model.", "Name a folder, a shipped model, or PREFIX:NAME: clippy models.")
    shipped = shipped_models()
    folder = Path(source).expanduser()
    for candidate in (folder, folder / "model"):
        if is_file(candidate / CONFIG_FILE):
            return candidate
    if source in shipped:
        return shipped[source]
    known = ", ".join(shipped) or "none"
    if source in architecture_names():
        raise ClippyError(
            f"{source} is an architecture; no weights of it ship with clippy (shipped: {known}).",
            "Train it with a recipe, then pass the run folder: --model runs/NAME",
        )
    if is_folder(folder):
        inside = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
        raise ClippyError(
            f"{source} is not a model directory: it lacks {CONFIG_FILE} (and model/{CONFIG_FILE}) and holds {inside}.",
            "Pass a folder written by clippy train, such as runs/quickstart.",
        )
    if is_file(folder):
        raise ClippyError(
            f"{source} is a file; a model of clippy is a folder with {CONFIG_FILE} and its weights.",
            "Pass the folder that holds them. Weights of others have a prefix, such as open_clip:ViT-B-32/FILE or "
            "timm:vit_base_patch16_224@FILE; clippy import reads the authors' checkpoint.",
        )
    hint = f"Is it on the Hugging Face hub? Write --model hf:{source}" if _NAME_ON_HUB.fullmatch(source) else None
    shown = source if len(source) <= _LONGEST_SHOWN else f"{source[:_LONGEST_SHOWN]}..."
    raise ClippyError(
        f"No model {shown!r}: no such folder, and the shipped models are {known}.", hint or "Check --model."
    )
