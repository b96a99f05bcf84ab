"""Variables of MATLAB 5 files, whose declared sizes are compared with their bytes before there is memory for them.

The format is MathWorks' "MAT-File Level 5" (matfile_format.pdf): elements of an 8-byte tag and their data, of which a
matrix is made of further elements. SciPy reads them, but takes a file at its word: 4 MB can unpack to 8 GB.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator, Set
from operator import contains
from pathlib import Path
from typing import Any, NamedTuple

from clippy_cli.errors import ClippyError, first_line
from clippy_cli.regular_files import read_bytes

MAX_UNPACKED = 64 << 20  # bytes; ten label maps of the largest photo of these sets have 5 MB
_HEADER = 128
_ORDERS = {b"IM": "<", b"MI": ">"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR, _FIRST_NUMBER, _LAST_NUMBER = 1, 2, 4, 6, 15
_COMPLEX = 1 << 11  # of a matrix's flags
_INT8, _INT32, _UINT32 = 1, 5, 6
_NUMBERS = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 12, 13})  # of 8 to 64 bits; SciPy crashes on the numbers between
_LETTERS = _NUMBERS | {16, 17, 18}  # UTF-8, UTF-16, UTF-32
_DEEPEST = 16


def read_variable(path: Path, name: str, *, what: str, hint: str) -> Any:
    """The variable ``name`` as SciPy's ``loadmat`` gives it; others are not read.

    ClippyError, which says that the file is not ``what``, where it is missing, damaged, without that variable, or would
    be larger than ``MAX_UNPACKED``.
    """
    from scipy.io import loadmat

    try:
        if path.stat().st_size > MAX_UNPACKED:
            raise ValueError(f"it is larger than {MAX_UNPACKED >> 20} MiB")
        data = read_bytes(path)
        order = _ORDERS.get(data[_HEADER - 2 : _HEADER])
        if order is None:
            raise ValueError("it is not a MATLAB 5 file")
        found = {_name(matrix, order): matrix for matrix in _unpacked(data[_HEADER:], order)}
        if name not in found:
            raise ValueError(f"it has no variable {name}; it holds {', '.join(map(repr, found)) or 'nothing'}")
        _check_matrix(found[name], order, 0)
        whole = data[:_HEADER] + struct.pack(f"{order}II", _MATRIX, len(found[name])) + found[name]
        return loadmat(io.BytesIO(whole), variable_names=[name])[name]
    except FileNotFoundError:
        raise ClippyError(f"{path}: no such file, so this photo has no mask", hint) from None
    except Exception as error:  # loadmat lets through whatever bad bytes lead to: KeyError, TypeError, ...
        raise ClippyError(f"{path}: not {what} ({type(error).__name__}: {first_line(error)})", hint) from error


class _Element(NamedTuple):
    kind: int
    data: bytes


def _unpacked(data: bytes, order: str) -> Iterator[bytes]:
    """The matrices of a file, compressed or not; ValueError where they are larger than ``MAX_UNPACKED`` together."""
    left = MAX_UNPACKED
    for element in _elements(data, order, padded=False):
        if element.kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            inner = unpacker.decompress(element.data, left + 1)
            left -= len(inner)
            if left < 0:
                raise ValueError(f"it unpacks to more than {MAX_UNPACKED >> 20} MiB")
            if not unpacker.eof:
                raise ValueError("a compressed part is cut short")
            element = next(_elements(inner, order))
        if element.kind == _MATRIX:
            yield element.data


def _elements(data: bytes, order: str, *, padded: bool = True) -> Iterator[_Element]:
    """The elements that lie one after another; small ones have their up to four bytes in the tag."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:
            yield _Element(kind & 0xFFFF, data[at + 4 : at + 4 + min(kind >> 16, 4)])
            at += 8
            continue
        if at + 8 + size > len(data):
            raise ValueError("a part is cut short")
        yield _Element(kind, data[at + 8 : at + 8 + size])
        at += 8 + size + (-size % 8 if padded or kind != _COMPRESSED else 0)


def _name(matrix: bytes, order: str) -> str:
    parts = list(_elements(matrix, order))
    if len(parts) < 3:  # flags, sides, name
        raise ValueError("a matrix is cut short")
    return parts[2].data.decode("latin-1")


def _check_matrix(matrix: bytes, order: str, depth: int) -> None:
    """ValueError where a matrix, or one inside of it, has more elements than bytes, or is of another kind."""
    if not matrix:
        return  # an empty cell
    parts = list(_elements(matrix, order))
    if len(parts) < 3 or len(parts[0].data) < 8 or len(parts[1].data) % 4:
        raise ValueError("a matrix is cut short")
    flags = struct.unpack_from(f"{order}I", parts[0].data)[0]
    kind = flags & 0xFF
    sides = struct.unpack(f"{order}{len(parts[1].data) // 4}i", parts[1].data)
    if kind not in (_CELL, _STRUCT, _CHAR) and not _FIRST_NUMBER <= kind <= _LAST_NUMBER:
        raise ValueError(f"a matrix of class {kind}, which is neither numbers, text, a cell nor a struct")
    if flags & _COMPLEX:
        raise ValueError("a matrix of complex numbers")
    inner = [part for part in parts[3:] if part.kind == _MATRIX]
    types, wanted = [part.kind for part in parts], _types_of_parts(kind, len(inner))
    if len(types) != len(wanted) or not all(map(contains, wanted, types)):
        raise ValueError(f"a matrix of class {kind} with parts of types {', '.join(map(str, types[:20]))}")
    room = len(inner) if kind in (_CELL, _STRUCT) else sum(len(part.data) for part in parts[3:])
    if len(sides) < 2 or min(sides) < 0 or math.prod(sides) > room:
        raise ValueError(f"a matrix of {'x'.join(map(str, sides))} elements in {room} parts or bytes")
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    for part in inner:
        _check_matrix(part.data, order, depth + 1)


def _types_of_parts(kind: int, inner: int) -> list[Set[int]]:
    """The types that each part of a matrix of class ``kind`` may have: flags, sides, name and what it holds."""
    common: list[Set[int]] = [{_UINT32}, {_INT32}, {_INT8}]
    if kind == _STRUCT:
        return [*common, {_INT32}, {_INT8}, *[{_MATRIX}] * inner]  # the length of names, and the names
    if kind == _CELL:
        return [*common, *[{_MATRIX}] * inner]
    return [*common, _LETTERS if kind == _CHAR else _NUMBERS]
