"""The authors' own checkpoint (github.com/kahnchana/clippy) -> a model directory's model.

Its keys: ``visual.trunk.*`` is timm's ViT-B/16 up to the final norm; ``text.0.auto_model.*`` the T5 encoder of
Sentence-T5 as transformers names it; ``text.2.linear.weight`` Sentence-T5's dense layer; ``logit_scale`` the logarithm.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.assembly import assemble
from clippy_cli.model.build import read_weights
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.positions import resample_positions
from clippy_cli.model.registry import load_architecture

ARCHITECTURE = "clippy-b16"
_TRUNK, _T5, _DENSE, _SCALE = "visual.trunk.", "text.0.auto_model.", "text.2.linear.weight", "logit_scale"
_VOCABULARY = ("shared.weight", "encoder.embed_tokens.weight")  # one table under two names
_SHOWN = 8


def import_checkpoint(path: Path, *, architecture: str = ARCHITECTURE, tokenizer: str | None = None) -> Clippy:
    """The model in ``path``, with no code of the file run.

    Args:
        path: a dictionary of tensors, perhaps below ``state_dict`` and with ``module.`` before each name.
        architecture: name or YAML file that says what the tensors belong to.
        tokenizer: folder or Hub name of the tokenizer files; None takes the architecture's.

    Raises:
        ClippyError: an unreadable file; tensors that are unknown, missing or of another shape, all in one message; no
            tokenizer files.
    """
    config = load_architecture(architecture)
    state = read_weights(path, "the checkpoint", hint="Give the path of clippy_5k.pt.")
    if not any(part in name for name in state for part in (_TRUNK, _T5)):
        held = ", ".join(list(state)[:_SHOWN]) or "nothing"
        raise ClippyError(
            f"{path} is not the authors' checkpoint: no tensor is under {_TRUNK} or {_T5}; it holds {held}.",
            "Give the path of clippy_5k.pt. Other weights: clippy models lists what --model takes.",
        )
    given = dict(_renamed({name.removeprefix("module."): value for name, value in state.items()}))
    config = config.model_copy(update={"training": {**config.training, "imported_from": path.name}})
    files = tokenizer or config.text.pretrained_tag
    try:
        model = assemble(config, files, where=f"The architecture {architecture}")
    except ClippyError as error:
        if "tokenizer" in error.message:
            raise ClippyError(
                f"The checkpoint holds no tokenizer, and the files of {files} (tokenizer.json, "
                f"tokenizer_config.json) cannot be had: {error.message}",
                "Copy those of sentence-transformers/sentence-t5-base into a folder and give it as --tokenizer FOLDER.",
            ) from error
        raise
    own = model.state_dict()
    _fit_positions(model, given)
    _check(path, given, {name: value for name, value in own.items() if name != "patch_mean"})
    with torch.no_grad():
        model.load_state_dict({**own, **{name: value.reshape(own[name].shape) for name, value in given.items()}})
    return model.eval()


def _renamed(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The checkpoint's tensors under this package's names; unknown ones keep theirs."""
    tables = [state[_T5 + name] for name in _VOCABULARY if _T5 + name in state]
    if len(tables) == 2 and not torch.equal(tables[0], tables[1]):
        raise ClippyError(
            f"{_T5}{_VOCABULARY[0]} and {_T5}{_VOCABULARY[1]} differ; in T5 they are one table.",
            "The checkpoint is not that of a T5 encoder.",
        )
    for name, value in state.items():
        value = value.float() if value.is_floating_point() else value
        if name.startswith(_TRUNK):
            yield f"image.trunk.{name.removeprefix(_TRUNK)}", value
        elif name.removeprefix(_T5) in _VOCABULARY and name.startswith(_T5):
            yield "text.encoder.transformer.embed_tokens.weight", value
        elif name.startswith(f"{_T5}encoder."):
            yield f"text.encoder.transformer.{name.removeprefix(f'{_T5}encoder.')}", value
        else:
            yield {_DENSE: "text.projection.weight", _SCALE: "log_logit_scale"}.get(name, name), value


def _fit_positions(model: Clippy, given: dict[str, Tensor]) -> None:
    """Resample a position table of another training resolution to the architecture's grid."""
    name = "image.trunk.pos_embed"
    trunk = model.image.trunk
    table = given.get(name)
    prefix = model.image.num_prefix_tokens
    if table is None or table.ndim != 3 or table.shape == trunk.pos_embed.shape:
        return
    side = int((table.shape[1] - prefix) ** 0.5 + 0.5)
    if side * side == table.shape[1] - prefix and table.shape[2] == trunk.pos_embed.shape[2]:
        given[name] = resample_positions(table, trunk.patch_embed.grid_size, None, prefix)


def _check(path: Path, given: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    theirs = {_authors_name(name): name for name in own}
    groups = {
        "unknown": [_authors_name(name) for name in given if name not in own],
        "missing": [theirs_name for theirs_name, name in theirs.items() if name not in given],
        "of another shape": [
            f"{theirs_name} {tuple(given[name].shape)}, wanted {tuple(own[name].shape)}"
            for theirs_name, name in theirs.items()
            if name in given and (given[name].shape != own[name].shape if own[name].ndim else given[name].numel() != 1)
        ],
    }
    lines = [
        f"  {len(names)} {what}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        for what, names in groups.items()
        if names
    ]
    if lines:
        raise ClippyError(
            f"{path} is not laid out as the authors' checkpoint:\n" + "\n".join(lines),
            f"Tensors are looked for under {_TRUNK}*, {_T5}*, {_DENSE} and {_SCALE}.",
        )


def _authors_name(name: str) -> str:
    """What the authors' checkpoint calls a tensor of this package's."""
    fixed = {
        "text.projection.weight": _DENSE,
        "log_logit_scale": _SCALE,
        "text.encoder.transformer.embed_tokens.weight": _T5 + _VOCABULARY[0],
    }
    if name in fixed:
        return fixed[name]
    trunk = name.removeprefix("image.trunk.")
    return _TRUNK + trunk if trunk != name else name.replace("text.encoder.transformer.", f"{_T5}encoder.")
