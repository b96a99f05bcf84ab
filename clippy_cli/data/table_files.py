"""Which files are tables of captions: their encoding by their first bytes, and what is none."""

from __future__ import annotations

import codecs
from pathlib import Path

from clippy_cli.errors import ClippyError
from clippy_cli.regular_files import is_file, open_regular

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAVE = "Write a .csv file with the header image,caption and one row for each caption"
_OTHER_KINDS = {
    ".parquet": f"{_SAVE}: pandas.read_parquet(...).to_csv(..., index=False).",
    ".arrow": f"{_SAVE}: datasets.Dataset.from_file(...).to_csv(...).",
    ".feather": f"{_SAVE}: pandas.read_feather(...).to_csv(..., index=False).",
    ".jsonl": f"{_SAVE}: pandas.read_json(..., lines=True).to_csv(..., index=False).",
    ".json": f"{_SAVE}; of COCO's annotations, file_name and caption.",
    ".xlsx": "Save the sheet as CSV UTF-8.",
    ".csv.gz": "Decompress it: gunzip.",
    ".tsv.gz": "Decompress it: gunzip.",
    ".zip": "Unpack it, and give the folder or the table in it.",
}
_SIGNATURES = {
    b"PAR1": ".parquet",
    b"ARROW1": ".arrow",
    b"PK\x03\x04": ".zip",
    b"\x1f\x8b": ".csv.gz",
}


def refuse_other_kinds(path: Path) -> None:
    """ClippyError where a file is, by its name, of a kind that holds captions and is not read."""
    ending = next((kind for kind in _OTHER_KINDS if path.name.lower().endswith(kind)), None)
    if ending is None or not is_file(path):
        return
    raise ClippyError(f"{path}: captions are not read from {ending} files", _OTHER_KINDS[ending])


def text_encoding(path: Path) -> str:
    """The codec of a text file by its byte-order mark, or by the zeros of UTF-16 in its first bytes; else UTF-8.

    ClippyError where its first bytes are those of another kind of file.
    """
    with open_regular(path) as file:
        head = file.read(64)
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            raise ClippyError(f"{path}: is not text but a {kind} file by its first bytes", _OTHER_KINDS[kind])
    for mark, codec in _BOMS:
        if head.startswith(mark):
            return codec
    if b"\0" in head[:2]:
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    return "utf-8"


def first_bad_line(path: Path) -> int:
    """The number of the first line that is not UTF-8; 0 where all are."""
    with open_regular(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0
