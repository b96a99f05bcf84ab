"""What a caption looks like that is none, several in one, or not as its author wrote it."""

from __future__ import annotations

import ast
import json
import re

# How other tools write an empty field, in exactly these spellings: "None" is no caption, "none" may be one.
_EMPTY = frozenset({"nan", "NaN", "NAN", "None", "null", "NULL", "<NA>", "NaT", "N/A", "#N/A", "undefined"})
_MOST_LISTED = 1 << 16  # characters
_ENTITY = re.compile(r"&(?:#\d{1,6}|#x[0-9a-fA-F]{1,6}|[a-z]{2,8});")
_DECODED_TWICE = re.compile(
    "[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac[\u0080-\u2122]|\u00e2[\u0080\u0082][\u0080-\u00bf]"
)
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)*", re.ASCII)


def one_line(text: str) -> str:
    """The text with each run of blanks and line breaks as one blank; empty where it has nothing else.

    >>> one_line(" a red\\n kite ")
    'a red kite'
    """
    return " ".join(text.split())


def stands_for_nothing(caption: str) -> bool:
    """Whether it is what a tool writes for an empty field, such as ``nan``.

    >>> stands_for_nothing("NaN"), stands_for_nothing("my nan")
    (True, False)
    """
    return caption in _EMPTY


def listed(text: str) -> list[str] | None:
    """The texts of a list that was written into one field, as JSON or as Python shows it; None where it is none.

    >>> listed('["a dog", "a cat"]'), listed("['a dog']"), listed("[sic] a dog")
    (['a dog', 'a cat'], ['a dog'], None)
    """
    text = text.strip()
    if not (text.startswith(("[", "(")) and text.endswith(("]", ")"))) or len(text) > _MOST_LISTED:
        return None
    if "'" not in text and '"' not in text:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list | tuple) and all(isinstance(one, str) for one in found):
            return list(found)
    return None


def oddity(caption: str) -> str:
    """Why a caption is probably not what its author wrote; empty for the others.

    >>> oddity("salt &amp; pepper"), oddity("salt & pepper")
    ('the caption has HTML entities, read as they stand', '')
    """
    if "&" in caption and _ENTITY.search(caption):
        return "the caption has HTML entities, read as they stand"
    if not caption.isascii():
        if "\ufffd" in caption:
            return "the caption has characters that were lost when it was decoded (U+FFFD)"
        if _DECODED_TWICE.search(caption):
            return "the caption looks like UTF-8 that was decoded as Latin-1"
    if caption[:1].isalpha():
        return ""
    if _NUMBER.fullmatch(caption):
        return "the caption is a number"
    return "" if any(map(str.isalnum, caption)) else "the caption has no letter or digit"


def captions_of_json(data: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The captions of ``{"captions": [...]}`` or ``{"caption": "..."}``, and why something there is not among them.

    ValueError where it is not JSON.
    """
    try:
        fields = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(fields, dict):
        return (), ()
    several, single = fields.get("captions"), fields.get("caption")
    found = several or single
    captions, unused = [], list[str]()
    for item in found if isinstance(found, list) else [found]:
        caption = one_line(item) if isinstance(item, str) else ""
        if not isinstance(item, str):
            unused.append("an item of its captions is not text")
        elif not caption or stands_for_nothing(caption) or "\0" in caption:
            unused.append("an item of its captions is empty, or stands for nothing")
        else:
            captions.append(caption)
    if several and isinstance(single, str) and single.strip() and one_line(single) not in captions:
        unused.append('it has "captions", so that its "caption" is not read')
    return tuple(captions), tuple(unused)
