"""``open_clip_config.json``, checked before open_clip builds what it says: it takes any number at its word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clippy_cli.errors import ClippyError
from clippy_cli.model.config import MAX_DEPTH, MAX_NUMBER, MAX_SIDE, MAX_TOKENS, MAX_WIDTH
from clippy_cli.model.weight_files import read_small_json

CONFIG = "open_clip_config.json"

_Side = Annotated[int, Field(strict=True, gt=0, le=MAX_SIDE)]
_Width = Annotated[int, Field(strict=True, gt=0, le=MAX_WIDTH)]
_Depth = Annotated[int, Field(strict=True, gt=0, le=MAX_DEPTH)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Spread = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
_SHOWN = 5


class _Section(BaseModel):
    """What matters to memory and arithmetic; open_clip checks the rest."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class _Vision(_Section):
    image_size: _Side | tuple[_Side, _Side] | None = None
    patch_size: _Side | tuple[_Side, _Side] | None = None
    width: _Width | None = None
    head_width: _Width | None = None
    layers: _Depth | tuple[_Depth, _Depth, _Depth, _Depth] | None = None


class _Text(_Section):
    context_length: Annotated[int, Field(strict=True, gt=0, le=MAX_TOKENS)] | None = None
    vocab_size: Annotated[int, Field(strict=True, gt=0, le=MAX_NUMBER)] | None = None
    width: _Width | None = None
    heads: _Width | None = None
    layers: _Depth | None = None


class _Pair(_Section):
    embed_dim: _Width
    vision_cfg: _Vision
    text_cfg: _Text


class _Pixels(_Section):
    size: _Side | tuple[_Side, _Side] | tuple[int, _Side, _Side] | None = None
    mean: tuple[_Number, _Number, _Number] | None = None
    std: tuple[_Spread, _Spread, _Spread] | None = None


class _Config(_Section):
    model_cfg: _Pair
    preprocess_cfg: _Pixels = _Pixels()


def check_config(folder: Path) -> None:
    """ClippyError where the description of a folder's model is none, or one of its sizes or statistics makes no sense.

    Shapes are ``embed_dim``, and in each tower image and patch sides, widths, depths and numbers of heads and words.
    """
    path = folder / CONFIG
    try:
        _Config.model_validate(read_small_json(path))
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in item['loc'] if not str(part).startswith(('constrained', 'tuple')))}: "
            f"{item['msg'][0].lower()}{item['msg'][1:]}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise ClippyError(
            f"{path} describes no model: {'; '.join([*problems[:_SHOWN], *more])}", "Copy or download it again."
        ) from error
