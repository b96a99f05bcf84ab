"""Embeddings of a part as one file: safetensors, or Parquet where pyarrow is installed.

Rows are spooled to disk as they come, so that memory holds a few photos, however many patches a shard has.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from clippy_cli.bulk.products import Keyed, failure_record
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.extras import install_command
from clippy_cli.files import json_text
from clippy_cli.notices import printable
from clippy_cli.reporting.answers import Failure

_ROWS_A_GROUP = {False: 1024, True: 32}  # of Parquet; with patches a row is a few hundred vectors


class Format(StrEnum):
    """How embeddings are stored."""

    SAFETENSORS = "safetensors"
    PARQUET = "parquet"


class DType(StrEnum):
    """In which precision."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"

    @property
    def numpy(self) -> np.dtype[Any]:
        """Little-endian, as both formats have it."""
        return np.dtype("<f2" if self is DType.FLOAT16 else "<f4")


@dataclass(frozen=True)
class SafetensorsFile:
    """Tensor ``embeddings`` (n,D); or ``patches`` (sum of h*w, D) and ``grids`` (n,2) int32, the h and w of each photo.

    The metadata hold two JSON lists: ``keys``, n of them in the order of the rows, and ``failures``, key and error of
    photos that have no row.
    """

    dtype: DType
    patches: bool
    ending: str = ".safetensors"

    def write(self, stream: BinaryIO, results: Iterable[Keyed], folder: Path) -> None:
        """See :class:`~clippy_cli.bulk.products.Product`."""
        keys, failures, grids = list[str](), list[dict[str, Any]](), list[tuple[int, int]]()
        rows = width = 0
        with (folder / "rows").open("w+b") as spool:
            for key, result in results:
                if isinstance(result, Failure):
                    failures.append(failure_record(key, result))
                    continue
                values = result.values.astype(self.dtype.numpy)
                spool.write(values.tobytes())
                width = values.shape[-1]
                rows += values.size // width
                keys.append(printable(key))
                if self.patches:
                    grids.append(values.shape[:2])
            spool.seek(0)
            shapes = (
                {"grids": (np.dtype("<i4"), (len(grids), 2))} if self.patches else {}
            )  # first, so that all is aligned
            shapes["patches" if self.patches else "embeddings"] = (self.dtype.numpy, (rows, width))
            metadata = {"keys": json_text(keys, indent=None), "failures": json_text(failures, indent=None)}
            stream.write(_header(shapes, metadata))
            if self.patches:
                stream.write(np.array(grids, "<i4").tobytes())
            shutil.copyfileobj(spool, stream, 1 << 20)


@dataclass(frozen=True)
class ParquetFile:
    """A row for each photo: ``key``, ``embedding`` (D values), ``error``; with patches ``height``, ``width`` and
    ``patches`` (h*w*D values, row after row) in place of ``embedding``.

    A photo that cannot be used has an ``error`` and nothing else.
    """

    dtype: DType
    patches: bool
    ending: str = ".parquet"

    def write(self, stream: BinaryIO, results: Iterable[Keyed], folder: Path) -> None:
        """See :class:`~clippy_cli.bulk.products.Product`."""
        import pyarrow as pa
        from pyarrow import parquet

        values = pa.list_(pa.float16() if self.dtype is DType.FLOAT16 else pa.float32())
        fields = [pa.field("key", pa.string()), pa.field("error", pa.string())]
        if self.patches:
            fields += [pa.field("height", pa.int32()), pa.field("width", pa.int32()), pa.field("patches", values)]
        else:
            fields.append(pa.field("embedding", values))
        schema = pa.schema(fields)
        with parquet.ParquetWriter(stream, schema, use_dictionary=False, write_statistics=False) as writer:
            rows = self._rows(results)
            while group := list(islice(rows, _ROWS_A_GROUP[self.patches])):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))

    def _rows(self, results: Iterable[Keyed]) -> Iterator[dict[str, Any]]:
        for key, result in results:
            if isinstance(result, Failure):
                yield {"key": printable(key), "error": result.error.message}
                continue
            values = result.values.astype(self.dtype.numpy)
            if self.patches:
                yield {
                    "key": printable(key),
                    "height": values.shape[0],
                    "width": values.shape[1],
                    "patches": values.reshape(-1),
                }
            else:
                yield {"key": printable(key), "embedding": values}


def parse_format(text: str) -> Format:
    """ClippyError for any other."""
    return Format(_known(text, list(Format), "--format"))


def parse_dtype(text: str) -> DType:
    """ClippyError for any other."""
    return DType(_known(text, list(DType), "--dtype"))


def _known(text: str, known: Sequence[str], flag: str) -> str:
    if text not in known:
        raise ClippyError(f"{flag} cannot be {text!r}", f"Choose {' or '.join(known)}.", ExitCode.USAGE)
    return text


def choose_format(form: Format, dtype: DType, *, patches: bool) -> SafetensorsFile | ParquetFile:
    """The product for a format; ClippyError where it needs a package that is not installed."""
    if form is Format.SAFETENSORS:
        return SafetensorsFile(dtype, patches)
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ClippyError(
            "--format parquet needs pyarrow, which is not installed", f"Run {install_command('parquet')}."
        ) from None
    return ParquetFile(dtype, patches)


def _header(shapes: dict[str, tuple[np.dtype[Any], tuple[int, int]]], metadata: dict[str, str]) -> bytes:
    """The beginning of a safetensors file whose tensors follow in this order, without gaps."""
    names = {"<f2": "F16", "<f4": "F32", "<i4": "I32"}
    header: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name, (dtype, shape) in shapes.items():
        end = start + shape[0] * shape[1] * dtype.itemsize
        header[name] = {"dtype": names[dtype.str], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
