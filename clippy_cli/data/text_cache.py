"""Embeddings of texts that are kept on disk, so that a later run needs neither to compute them nor a text tower.

What is kept is the answer to a whole request, under a digest of everything that it depends on. Single texts are not
kept: the last bits of a vector depend on what else was in its batch, and what is kept is equal, to the last bit, to
what would be computed anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from clippy_cli import __version__
from clippy_cli.data.index_cache import cache_folder
from clippy_cli.errors import ClippyError
from clippy_cli.files import write_whole
from clippy_cli.model.sources.loading import text_files
from clippy_cli.regular_files import open_regular, read_bytes

MAX_BYTES = 256 << 20  # of all that is kept
ComparedWith: TypeAlias = Literal["images", "patches"]
_FORMAT = 1
_LARGE = 1 << 20  # bytes of a file whose digest is worth keeping
_FRESH = 2.0  # seconds in which a file may change again without another time of change
_OWN_NAME = re.compile(r"[0-9a-f]{32}\.(texts|digest)")
_LIBRARIES = ("torch", "transformers", "tokenizers", "open-clip-torch", "ftfy", "numpy")
_CHOOSE_CODE = (
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
)  # variables that libraries of matrices read
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextRequest:
    """What is asked of a text tower, and where it runs.

    Attributes:
        texts: filled templates, one name after the other, or texts as they are.
        averaged: how many texts in a row make one vector, the number of templates; None for a vector a text.
        compared_with: whole images, or patches.
        device: cpu, or a device's name as CUDA gives it; texts are embedded in float32 everywhere.
    """

    texts: tuple[str, ...]
    averaged: int | None
    compared_with: ComparedWith
    device: str = "cpu"


class TextCache:
    """Kept embeddings of one model: :meth:`find` needs no model, and so tells whether a text tower is wanted at all."""

    def __init__(self, fingerprint: str, folder: Path | None = None, *, limit: int = MAX_BYTES) -> None:
        """``fingerprint`` of the model's text side; ``folder`` is by default the user's, of at most ``limit`` bytes."""
        self.fingerprint = fingerprint
        self._folder, self._limit = folder or cache_folder("texts"), limit

    @classmethod
    def of_source(cls, source: str) -> TextCache | None:
        """That of the model that ``--model`` calls ``source``, by the files it is loaded from, before any is loaded.

        None where these are not known, or where there is no place to keep anything.
        """
        try:
            files = text_files(source)
            if files is None:
                _log.info(
                    "texts of %s are embedded anew each time: its files are not known before it is loaded", source
                )
                return None
            folder = cache_folder("texts")
            listed = [(name, _digest(path, folder)) for name, path in sorted(files.items())]
        except (ClippyError, OSError, RuntimeError) as error:  # RuntimeError of a user without a home
            _log.info("texts of %s are not kept: %s", source, error)
            return None
        return cls(hashlib.sha256(json.dumps(listed).encode()).hexdigest(), folder)

    def find(self, request: TextRequest) -> NDArray[np.float32] | None:
        """(K,D) float32 as they were computed, or None."""
        key = self._key(request)
        path = self._path(key)
        try:
            if path.stat().st_size > self._limit:
                raise ValueError("is too large")
            vectors = _unpacked(read_bytes(path), key)
            if len(vectors) != len(request.texts) // (request.averaged or 1):
                raise ValueError("holds vectors of other texts")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, MemoryError, SafetensorError) as error:
            _log.info("%s: cannot be used (%s); the texts are embedded anew", path, error)
            return None
        with suppress(OSError):
            os.utime(path)  # what was used last is removed last
        _log.info("%d texts: their embeddings are kept in %s", len(request.texts), path)
        return vectors

    def keep(self, request: TextRequest, vectors: NDArray[np.float32]) -> None:
        """Keep what was computed; a place that cannot be written to does no harm."""
        if 2 * vectors.nbytes > self._limit:
            return
        key = self._key(request)
        try:
            write_whole(self._path(key), lambda stream: stream.write(_packed(vectors, key)))
            _remove_oldest(self._folder, self._limit)
        except (ClippyError, OSError) as error:
            _log.info("embeddings of texts are not kept: %s", error)

    def _key(self, request: TextRequest) -> str:
        values = [
            *(_FORMAT, self.fingerprint, request.compared_with, request.averaged, request.texts),
            *(request.device, "fp32", _environment()),
        ]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()

    def _path(self, key: str) -> Path:
        return self._folder / f"{key[:32]}.texts"


def _environment() -> list[str]:
    """Whatever else the last bits of a vector may depend on: versions, the processor, its threads."""
    import torch

    products = ""
    with suppress(RuntimeError):  # where a program chose it by two interfaces of torch
        products = torch.get_float32_matmul_precision()
    chosen = [os.environ.get(name, "") for name in _CHOOSE_CODE]
    return [*_versions(), torch.backends.cpu.get_cpu_capability(), str(torch.get_num_threads()), products, *chosen]


@lru_cache(maxsize=1)
def _versions() -> tuple[str, ...]:
    found = [f"clippy {__version__} {_own_code()}", _processor()]
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return tuple(found)


def _own_code() -> str:
    """A digest of when the modules that embed texts were last written, for those who work on them."""
    package = Path(__file__).parents[1]
    modules = [*sorted((package / "model").rglob("*.py")), package / "data" / "prompts.py"]
    return hashlib.sha256(json.dumps([path.stat().st_mtime_ns for path in modules]).encode()).hexdigest()[:12]


def _processor() -> str:
    """Its name: libraries of matrices choose their code by it."""
    with suppress(OSError, UnicodeDecodeError):
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return f"{platform.machine()} {platform.processor()}"


def _packed(vectors: NDArray[np.float32], key: str) -> bytes:
    about = {"key": key, "sha256": hashlib.sha256(vectors.tobytes()).hexdigest()}
    return safetensors.numpy.save({"vectors": vectors}, {"about": json.dumps(about)})


def _unpacked(data: bytes, key: str) -> NDArray[np.float32]:
    """ValueError and others where these are not the vectors that were kept under ``key``."""
    vectors: NDArray[Any] = safetensors.numpy.load(data)["vectors"]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # safetensors' own layout
    about = json.loads(header["__metadata__"]["about"])
    if about["key"] != key or vectors.dtype != np.float32 or vectors.ndim != 2:
        raise ValueError("holds other vectors")
    if about["sha256"] != hashlib.sha256(vectors.tobytes()).hexdigest():
        raise ValueError("is damaged")
    return vectors


def _digest(path: Path, folder: Path) -> str:
    """SHA-256 of a file; that of a large one is kept in ``folder`` for as long as nothing wrote to the file."""
    stat = path.stat()
    place = [str(path.absolute()), stat.st_dev, stat.st_ino]
    identity = json.dumps([_FORMAT, *place, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    keep = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.digest"
    if stat.st_size >= _LARGE:
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(read_bytes(keep))
            if kept["identity"] == identity and re.fullmatch("[0-9a-f]{64}", kept["sha256"]):
                return str(kept["sha256"])
    with open_regular(path) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if stat.st_size >= _LARGE and time.time() - stat.st_ctime > _FRESH:
        text = json.dumps({"identity": identity, "sha256": found})
        with suppress(ClippyError):
            write_whole(keep, lambda stream: stream.write(text.encode()))
    return found


def _remove_oldest(folder: Path, limit: int) -> None:
    """Remove what was used longest ago, of clippy's own files, until the others fit into ``limit`` bytes."""
    found = []
    for path in folder.iterdir():
        if _OWN_NAME.fullmatch(path.name):
            with suppress(FileNotFoundError):  # another process may remove it at the same time
                stat = path.stat()
                found.append((stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size
