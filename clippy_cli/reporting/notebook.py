"""What results show of themselves in a notebook: a reduced picture beside a table, self-contained."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

_SHOWN = 640  # pixels of the longer side
_JPEG_QUALITY = 88


def encoded(picture: Image.Image, form: str) -> bytes:
    """A picture as a file of that format, reduced to what a notebook shows."""
    small = picture.copy()
    small.thumbnail((_SHOWN, _SHOWN))
    stream = io.BytesIO()
    small.save(stream, format=form, quality=_JPEG_QUALITY)
    return stream.getvalue()


def swatch(rgb: tuple[int, int, int]) -> str:
    return '<span style="display:inline-block;width:1.2em;height:1em;background:rgb({},{},{})"></span>'.format(*rgb)


def figure(picture: Image.Image, source: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Picture and table in HTML, self-contained; cells are HTML already."""
    data = base64.b64encode(encoded(picture, "JPEG")).decode("ascii")
    top = "".join(f"<th>{head}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<figure style="margin:0"><img alt="{escape(source, quote=True)}" src="data:image/jpeg;base64,{data}">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></figure>"
    )
