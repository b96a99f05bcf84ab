"""One seeded change of a file's bytes, or of the structure that they stand for."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import yaml

Change = Callable[[bytes, random.Random], bytes]

NUMBERS = (
    *(0, -1, 1, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**63, 10**12, -(10**9), 10**30, 0.0, 1e308, -1e-300, 0.5),
    *(float("nan"), float("inf")),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "\ud800", "\x00", "../../x", "a" * 5000, "9" * 5000),
    *([], {}, [[]], {"a": {}}, [1, "a", None]),
)
DEEP = 100_000


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 8, 64)) if data else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def splice(data: bytes, rng: random.Random) -> bytes:
    """A piece of the file copied to, or moved over, another place."""
    if not data:
        return b"x"
    start, to = rng.randrange(len(data)), rng.randrange(len(data))
    piece = data[start : start + rng.choice((1, 4, 16, 256, 4096))]
    return data[:to] + piece + data[to + rng.choice((0, len(piece))) :]


def extreme_bytes(data: bytes, rng: random.Random) -> bytes:
    """Two to eight bytes replaced by a number at the end of its range."""
    form = rng.choice(["<H", ">H", "<I", ">I", "<Q", ">Q"])
    size = struct.calcsize(form)
    top = 256**size
    number = rng.choice((0, 1, top - 1, top // 2, top // 2 - 1, top // 256))
    at = rng.randrange(max(1, len(data) - size))
    return data[:at] + struct.pack(form, number) + data[at + size :]


def extreme_text(data: bytes, rng: random.Random) -> bytes:
    """A number in a text replaced by an extreme one."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    if not found:
        return splice(data, rng)
    place = rng.choice(found)
    number = rng.choice((*NUMBERS, "NaN", "-Infinity", "1e999", "9" * 5000))
    return data[: place.start()] + str(number).encode() + data[place.end() :]


def nest(data: bytes, rng: random.Random) -> bytes:
    """Brackets without end somewhere in the file."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((b"[", b'{"a":', b"(", b"- ")) * rng.choice((100, DEEP)) + data[at:]


def change_json(data: bytes, rng: random.Random) -> bytes:
    return _edited(data, rng, json.loads, lambda document: json.dumps(document).encode())


def change_yaml(data: bytes, rng: random.Random) -> bytes:
    return _edited(data, rng, yaml.safe_load, lambda document: yaml.safe_dump(document, allow_unicode=True).encode())


def change_lines(data: bytes, rng: random.Random) -> bytes:
    """A line dropped, doubled, moved, or edited where it is JSON."""
    lines = data.split(b"\n")
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(to, lines[at])
    elif kind == 2:
        lines[at], lines[to] = lines[to], lines[at]
    else:
        lines[at] = change_json(lines[at], rng)
    return b"\n".join(lines)


def change_safetensors(data: bytes, rng: random.Random) -> bytes:
    """The header edited, and its length made right again."""
    (length,) = struct.unpack_from("<Q", data)
    header = change_json(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def change_archive(data: bytes, rng: random.Random) -> bytes:
    """One record of a zip archive damaged, dropped or packed, under a checksum that is right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    name = rng.choice([name for name in records if name.endswith("data.pkl")] * 4 + list(records))
    kind = rng.randrange(8)
    if kind == 0:
        del records[name]
    elif kind == 1:
        records[name] = bytes(rng.choice((0, 0, 0, 1 << 20, 1 << 26)))
    else:
        records[name] = rng.choice((flip_bits, truncate, splice, extreme_bytes))(records[name], rng)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED if kind == 1 else zipfile.ZIP_STORED) as archive:
        for record, held in records.items():
            archive.writestr(record, held)
    return packed.getvalue()


def change_matlab(data: bytes, rng: random.Random) -> bytes:
    """A compressed variable of a MATLAB 5 file unpacked, damaged and packed again."""
    kind, size = struct.unpack_from("<II", data, 128)
    if kind != 15:
        return extreme_bytes(data, rng)
    inner = zlib.decompress(data[136 : 136 + size])
    head, tail = inner[:400], inner[400:]
    for _ in range(rng.choice((1, 1, 4))):
        head = rng.choice((flip_bits, extreme_bytes, truncate, splice))(head, rng)
    packed = zlib.compress(head + tail + bytes(rng.choice((0,) * 40 + (1 << 27,))))
    return data[:128] + struct.pack("<II", 15, len(packed)) + packed


def repeat_key(data: bytes, rng: random.Random) -> bytes:
    """A field given a second time, with another value, which a document cannot express once it is parsed."""
    found = list(re.finditer(rb'"[^"\\]{1,40}": ', data))
    if not found:
        return splice(data, rng)
    place, value = rng.choice(found), json.dumps(rng.choice((*NUMBERS, *VALUES))).encode()
    return data[: place.start()] + place[0] + value + b", " + data[place.start() :]


def refer(data: bytes, rng: random.Random) -> bytes:
    """Aliases in YAML that unfold to far more than the file, or to themselves."""
    lines = data.split(b"\n")
    wide = b"".join(b"z%d: &z%d [%s]\n" % (n, n, b", ".join([b"*z%d" % (n - 1)] * 9)) for n in range(1, 9))
    added = rng.choice((b"z0: &z0 [x, x]\n" + wide, b"z0: &z0 {<<: *z0}", b"z0: &z0 [*z0]", b"<<: {name: x}"))
    at = rng.randrange(len(lines) + 1)
    changed = b"\n".join([*lines[:at], *added.split(b"\n"), *lines[at:]])
    return re.sub(rb": [^\n*&]+$", b": *z%d" % rng.randrange(9), changed, count=1) if rng.random() < 0.5 else changed


def change_array(data: bytes, rng: random.Random) -> bytes:
    """The header of a NumPy file edited, and its length made right again."""
    (length,) = struct.unpack_from("<H", data, 8)
    header = data[10 : 10 + length]
    edits = (
        lambda: extreme_text(header, rng),
        lambda: header.replace(b"<f2", rng.choice((b"<f4", b"|O", b"<c16", b"|S9", b"<M8", b"|V0", b"<f3"))),
        lambda: header.replace(b"'shape': (", b"'shape': (" + rng.choice((b"", b"-1,", b"0, ", b"2**99, ", b"(")) * 40),
        lambda: rng.choice(BYTES)(header, rng),
    )
    header = rng.choice(edits)()[:65000]
    return data[:8] + struct.pack("<H", len(header)) + header + data[10 + length :]


BYTES: tuple[Change, ...] = (flip_bits, truncate, splice, extreme_bytes)
TEXT: tuple[Change, ...] = (*BYTES, extreme_text, nest)
JSON: tuple[Change, ...] = (*TEXT, repeat_key, *(change_json,) * 6)
YAML: tuple[Change, ...] = (*TEXT, refer, *(change_yaml,) * 6)
LINES: tuple[Change, ...] = (*TEXT, *(change_lines,) * 6)
SAFETENSORS: tuple[Change, ...] = (*BYTES, *(change_safetensors,) * 3)
ARCHIVE: tuple[Change, ...] = (*BYTES, *(change_archive,) * 4)
ARRAY: tuple[Change, ...] = (*BYTES, *(change_array,) * 4)
MATLAB: tuple[Change, ...] = (*BYTES, *(change_matlab,) * 4)


def _edited(data: bytes, rng: random.Random, read: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> bytes:
    """The document with one to three nodes replaced, dropped, repeated or renamed; other damage where it is none."""
    try:
        document = read(data)
        for _ in range(rng.choice((1, 1, 1, 3))):
            document = _edit(document, rng)
        return write(document)
    except (ValueError, RecursionError, yaml.YAMLError):
        return rng.choice(BYTES)(data, rng)


def _edit(document: Any, rng: random.Random) -> Any:
    places = [place for place in _places(document) if place]
    if not places:
        return rng.choice(VALUES)
    *above, last = rng.choice(places)
    inner = document
    for key in above:
        inner = inner[key]
    kind = rng.randrange(9)
    if kind == 0:
        del inner[last]
    elif kind == 8:  # by another part of the document
        *path, key = rng.choice(places)
        there = document
        for part in path:
            there = there[part]
        inner[last] = copy.deepcopy(there[key])
    elif kind == 1 and isinstance(inner, list):
        inner.extend(inner[:] * 3)
    elif kind == 1 and isinstance(last, str):
        inner[f"{last}x"] = inner.pop(last)
    elif kind == 2:
        inner[last] = [inner[last]]
    elif kind == 3:
        inner[last] = rng.choice(VALUES)
    else:
        inner[last] = rng.choice(NUMBERS)
    return document


def _places(document: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Keys of every node, from the outside in."""
    found = [above]
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        found += _places(value, (*above, key))
    return found
