"""The files of stored features: arrays, samples, and what they were computed from; whole, or not used."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.identity import DataIdentity
from clippy_cli.errors import ClippyError, first_line
from clippy_cli.regular_files import read_text, require_regular

_log = logging.getLogger(__name__)

Sample = tuple[str, ...] | str  # its captions, or what is wrong with it


def is_of(folder: Path, fingerprint: dict[str, Any], identity: DataIdentity) -> bool:
    """Whether the features in ``folder`` are of this data and these weights; what differs is logged."""
    written = _written(folder / "fingerprint.json")
    if written == fingerprint:
        return True
    if isinstance(written, dict):
        changed = [name for name in fingerprint if written.get(name) != fingerprint[name]]
        try:
            changes = identity.changes(_array(folder / "identity.npy", np.int64, 2, wide=2))
        except (OSError, ValueError):  # of an earlier version
            changes = ()
        what = "; ".join(changes) or f"they differ in {', '.join(changed)}"
        _log.warning("%s: the stored features are computed again, since %s", folder, what)
    return False


def stored(folder: Path) -> tuple[NDArray[np.float16], NDArray[np.float32] | None, list[Sample]]:
    """(S,V,P+N,F) images of V views, (T,F) texts if any, and S samples; ClippyError where they do not fit together."""
    try:
        images = _array(folder / "images.npy", np.float16, 4)
        texts = _array(folder / "texts.npy", np.float32, 2) if (folder / "texts.npy").is_file() else None
        samples = read_samples(folder)
        count = sum(len(sample) for sample in samples if not isinstance(sample, str))
        if len(images) != len(samples) or not images.size:
            raise ValueError(f"{len(samples)} samples, images of shape {images.shape}")
        if texts is not None and len(texts) != count:
            raise ValueError(f"{count} captions, texts of shape {texts.shape}")
        return images, texts, samples
    except (OSError, ValueError, TypeError, EOFError, RecursionError) as error:
        raise ClippyError(
            f"The stored features in {folder} are damaged: {first_line(error)}", f"Delete {folder}; they are made anew."
        ) from error


def _array(path: Path, dtype: type[np.generic], dimensions: int, *, wide: int | None = None) -> NDArray[Any]:
    """A stored array, mapped; OSError or ValueError where it is none, of another type, or of other dimensions."""
    require_regular(path)
    try:
        array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        raise
    except Exception as error:  # NumPy reads a header as Python does: TokenError, OverflowError, EOFError, ...
        raise ValueError(f"{path.name}: {type(error).__name__}: {first_line(error)}") from error
    fits = isinstance(array, np.ndarray) and array.dtype == dtype and array.ndim == dimensions
    if not fits or wide not in (None, array.shape[-1]):
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise ValueError(f"{path.name} holds {found}")
    checked: NDArray[Any] = array
    return checked


def read_samples(folder: Path) -> list[Sample]:
    path = folder / "samples.jsonl"
    samples: list[Sample] = []
    if path.is_file():
        for line in read_text(path).splitlines(keepends=True):
            if line.endswith("\n"):  # a killed process may leave half a line
                value = json.loads(line)
                captions = [value] if isinstance(value, str) else value
                if (
                    not isinstance(captions, list)
                    or not captions
                    or not all(isinstance(text, str) for text in captions)
                ):
                    raise ValueError(f"{path.name}: {line[:40]!r} is no list of captions")
                samples.append(value if isinstance(value, str) else tuple(value))
    return samples


def write_samples(folder: Path, samples: list[Sample], mode: str) -> None:
    with (folder / "samples.jsonl").open(mode, encoding="utf-8") as file:
        file.writelines(json.dumps(sample) + "\n" for sample in samples)


def _written(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return None


def write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    temporary.replace(path)
