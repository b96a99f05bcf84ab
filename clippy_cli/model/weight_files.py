"""Weight files of anyone: whole, no larger in memory than on disk, finite; and the checksums of a folder.

A PyTorch file is a zip archive whose records carry a CRC-32 (https://docs.pytorch.org/docs/stable/notes/serialization),
which PyTorch writes but does not compare when it reads.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from clippy_cli.errors import ClippyError, first_line
from clippy_cli.files import stays_below
from clippy_cli.regular_files import open_regular, read_text, require_regular

CHECKSUMS_FILE = "checksums.json"
MAX_SMALL_FILE = 128 << 20  # bytes of a configuration or a tokenizer; the largest of transformers have 35 MB
_SHARED = 4  # how often larger than its file a state dictionary may be: tensors under several names
_FIRST = 64  # values of a tensor, of which one is rarely zero
_AGAIN = "Copy or download it again."
logger = logging.getLogger(__name__)


def write_checksums(folder: Path, but: Collection[str] = ()) -> None:
    """Note the SHA-256 of every file below ``folder`` in its ``checksums.json``, ``but`` those that users may edit."""
    left_out = {CHECKSUMS_FILE, *but}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in left_out)
    sums = {path.relative_to(folder).as_posix(): _sha256(path) for path in files}
    text = json.dumps({"sha256": sums}, indent=2) + "\n"
    (folder / CHECKSUMS_FILE).write_text(text, encoding="utf-8")


def verify_checksums(folder: Path) -> None:
    """ClippyError that names a file of ``checksums.json`` that is missing or not as it was written.

    A folder without one, such as an earlier version wrote, is taken as it is, and the log says so. Files that are not
    listed do not matter.
    """
    listing = folder / CHECKSUMS_FILE
    if not os.path.lexists(listing):
        logger.info("%s holds no %s: its files are not compared with what was written", folder, CHECKSUMS_FILE)
        return
    listed = read_small_json(listing)
    sums = listed.get("sha256") if isinstance(listed, dict) else None
    if not isinstance(sums, dict) or not sums or not all(isinstance(value, str) for value in sums.values()):
        raise ClippyError(f'{listing} is damaged: it holds no "sha256" of each file.', _AGAIN)
    for name, written in sums.items():
        path = folder / name
        if not stays_below(name):
            raise ClippyError(f"{listing} is damaged: {name!r} lies outside of the folder.", _AGAIN)
        try:
            found = _sha256(path)
        except OSError as error:
            raise ClippyError(f"{path} cannot be read ({error.strerror or error}).", _AGAIN) from error
        if found != written:
            raise ClippyError(
                f"{path} is damaged: its SHA-256 is {found[:12]}..., {CHECKSUMS_FILE} says {written[:12]}...",
                f"Copy the whole folder again. If you changed the file yourself, delete {listing}.",
            )


def read_small_json(path: Path) -> Any:
    """A JSON document; ClippyError where it is none, nested too deeply, or too large for a description."""
    try:
        if path.stat().st_size > MAX_SMALL_FILE:
            raise ClippyError(f"{path}: larger than {MAX_SMALL_FILE >> 20} MiB, so it is not a description.", _AGAIN)
        return json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise ClippyError(f"{path} cannot be read: {first_line(error)}", _AGAIN) from error
    except RecursionError:
        raise ClippyError(f"{path} cannot be read: it is nested too deeply.", _AGAIN) from None


def check_weight_file(path: Path) -> None:
    """ClippyError where a path is no regular file, or a PyTorch file is damaged or would unpack to more than it holds.

    Other formats pass. Once a process for a file that stays as it is.
    """
    try:
        stat = path.stat()
        require_regular(path)
        if path.suffix != ".safetensors" and zipfile.is_zipfile(path):
            _check_archive(str(path), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise ClippyError(f"{path} cannot be read: {error.strerror or error}", _AGAIN) from error
    except zipfile.BadZipFile as error:  # of its last lines, which already say that it is none
        raise ClippyError(f"{path} is damaged: {first_line(error)}", _AGAIN) from error


@lru_cache(maxsize=64)
def _check_archive(path: str, size: int, modified: int) -> None:
    """Every record of the archive, read once; ``size`` and ``modified`` make another file another question."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            declared = sum(record.file_size for record in records)
            packed = next((record for record in records if record.compress_type != zipfile.ZIP_STORED), None)
            if packed is not None and declared > size:
                raise ClippyError(
                    f"{path}: {packed.filename} is compressed, and the file would unpack to {declared:,} bytes; "
                    "PyTorch writes none that are.",
                    "Save it again with torch.save, or convert it to safetensors.",
                )
            damaged = archive.testzip()
    except ClippyError:
        raise
    except Exception as error:  # BadZipFile, and what zipfile lets through: struct.error, zlib.error, ValueError, ...
        raise ClippyError(f"{path} is damaged: {first_line(error)}", _AGAIN) from error
    if damaged is not None:
        raise ClippyError(f"{path} is damaged: the checksum of its record {damaged} is wrong.", _AGAIN)


def check_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """ClippyError for tensors that a file of this size cannot hold, or that are sparse, complex or without values.

    A tensor of stride 0 lies in a few bytes, and takes as much memory as it likes once it is copied.
    """
    size, total = path.stat().st_size, 0
    for name, value in state.items():
        plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not plain or value.is_complex():
            raise ClippyError(f"{path}: the tensor {name} is no plain one ({value.layout}, {value.dtype}).", _AGAIN)
        if value.dtype in (torch.int8, torch.uint8) and value.ndim > 1:
            raise _quantized(path, name, str(value.dtype))
        total += value.numel() * value.element_size()
        if value.numel() * value.element_size() > size or total > _SHARED * size:
            raise ClippyError(
                f"{path}: the tensor {name} of shape {tuple(value.shape)} is larger than the whole file.", _AGAIN
            )


def _quantized(path: Path, name: str, dtype: str) -> ClippyError:
    return ClippyError(
        f"{path}: the tensor {name} holds whole numbers ({dtype}): its weights are quantized, and mean nothing without "
        "their scales.",
        "Take weights in float32, float16 or bfloat16.",
    )


def check_types(path: Path) -> None:
    """ClippyError where matrices of a weight file are 8-bit integers, which libraries convert silently.

    Only descriptions are read: the header of a safetensors file, the pickle of a PyTorch archive. Other files pass.
    """
    found: list[tuple[str, str]] = []
    with suppress(Exception):  # whoever loads the file says what is wrong with it
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                parts = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118 (no dictionary)
            found = [(name, part.get_dtype()) for name, part in parts if len(part.get_shape()) > 1]
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                pickled = [archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl")]
            found = [("in it", "I8") for text in pickled if b"CharStorage" in text]
    for name, kind in found:
        if kind in ("I8", "U8"):
            raise _quantized(path, name, kind)


def check_filled(tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Refuse weights of which a fourth is zeros, and warn of a matrix that is: what an unfinished download leaves.

    Downloaders reserve the whole file before they fill it. Single vectors may well be zero, and so may a mask token.
    """
    empty: list[str] = []
    zeros = total = 0
    for name, value in tensors:
        if value.is_floating_point() and value.numel() > 1:
            total += value.numel()
            if not bool(value.reshape(-1)[:_FIRST].any()) and not bool(value.any()):
                zeros += value.numel()
                if value.ndim > 1 and min(value.shape[:2]) > 1:
                    empty.append(name)
    if not empty:
        return
    named = f"({', '.join(empty[:3])}{', ...' if len(empty) > 3 else ''})"
    what = f"{where}: {'1 matrix holds' if len(empty) == 1 else f'{len(empty)} matrices hold'} zeros alone {named}"
    if 4 * zeros >= total:
        raise ClippyError(f"{what}: the file was not written or downloaded to its end.", _AGAIN)
    logger.warning("%s; a download that was cut short leaves such", what)


def check_finite(tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """ClippyError that names the first tensor with NaN or inf among its values, and how many there are."""
    for name, value in tensors:
        if value.is_floating_point() and value.numel() and not all_finite(value):
            wrong = int((~torch.isfinite(value.float())).sum())
            raise ClippyError(
                f"{where}: {wrong:,} of {value.numel():,} values of the tensor {name} are NaN or inf.",
                "Take other weights: a training that diverged writes such, and so does a damaged copy.",
            )


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or inf. A sum is enough, since either spoils it; where it overflows all are looked at."""
    if values.element_size() == 1:  # float8 has no sum
        values = values.float()
    total = values.sum(dtype=torch.float64 if values.dtype == torch.float64 else torch.float32)
    return bool(torch.isfinite(total)) or bool(torch.isfinite(values).all())


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
