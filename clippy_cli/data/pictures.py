"""Pictures that know their size before they are decoded, and decode no more than is asked for."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.images import decode_image, open_image, orientation

REDUCTIONS = (1, 2, 4, 8)

_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
_PADDED_END = b"\0\0\0\xff\xd9"  # OpenCV prints that there are bytes before the end; Pillow passes over them
_START_OF_SCAN, _END_OF_IMAGE, _RESTART_INTERVAL = b"\xff\xda", b"\xff\xd9", b"\xff\xdd\0\x04"


class Picture(Protocol):
    """An upright picture of ``height`` x ``width`` pixels."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def pixels(self, reduction: int = 1) -> NDArray[np.uint8]:
        """The pixels (H',W',3) uint8 RGB, where 1, 2, 4 or 8 as ``reduction`` allows for a smaller picture.

        A picture that decodes faster at a fraction of its size gives ceil(H/reduction) x ceil(W/reduction) pixels, any
        other all of its own: the shape tells. ClippyError where it is damaged.
        """
        ...


@dataclass(frozen=True)
class ArrayPicture:
    """A picture that is there already, (H,W,3) uint8 RGB; never reduced."""

    array: NDArray[np.uint8]

    @property
    def height(self) -> int:
        return int(self.array.shape[0])

    @property
    def width(self) -> int:
        return int(self.array.shape[1])

    def pixels(self, reduction: int = 1) -> NDArray[np.uint8]:
        """The array itself."""
        return self.array


class EncodedPicture:
    """An image file held in memory; ``where`` names it in errors.

    JPEG and WebP in plain RGB or greyscale are decoded by OpenCV when ``pixels`` is called, JPEG at the reduced scale.
    Whatever else Pillow reads is decoded at once, in full, and so are files with something odd about them: OpenCV may
    pass over damage that Pillow reports. Whole pixels are those of :func:`decode_image`. ClippyError as there.
    """

    def __init__(self, data: bytes, where: str) -> None:
        self._data, self._where = data, where
        self._header = _plain_header(data, where)
        if self._header is not None:
            sides = self._header.height, self._header.width
            self.height, self.width = sides[::-1] if self._header.orientation in _SIDEWAYS else sides
        else:
            self._decoded = decode_image(data, where=where)
            self.height, self.width = self._decoded.shape[:2]

    def pixels(self, reduction: int = 1) -> NDArray[np.uint8]:
        """The pixels, reduced where the file is a JPEG; see :class:`Picture`."""
        if self._header is None:
            return self._decoded
        flags = _FLAGS[reduction if self._header.is_jpeg else 1] | cv2.IMREAD_IGNORE_ORIENTATION
        try:
            bgr = cv2.imdecode(np.frombuffer(self._data, np.uint8), flags)
        except cv2.error:
            bgr = None
        if bgr is None:
            return decode_image(self._data, where=self._where)  # which says what is wrong
        return _upright(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), self._header.orientation)


@dataclass(frozen=True)
class _Header:
    height: int
    width: int
    orientation: int
    is_jpeg: bool


def _plain_header(data: bytes, where: str) -> _Header | None:
    """The header of a file that OpenCV decodes exactly as Pillow does, None for any other."""
    try:
        with io.BytesIO(data) as stream, open_image(stream, where=where, formats=("JPEG", "WEBP")) as image:
            is_jpeg = image.format == "JPEG"  # neither MPO nor WebP
            if is_jpeg:
                safe = _is_whole_jpeg(
                    data, data.rfind(_START_OF_SCAN, 0, stream.tell()), progressive="progressive" in image.info
                )
            else:
                safe = image.format == "WEBP" and _is_one_webp_chunk(data)
            if not safe or image.mode not in ("RGB", "L"):
                return None
            return _Header(image.height, image.width, orientation(image), is_jpeg)
    except Exception:  # Pillow raises all sorts on bad data; decode_image tells them apart
        return None


def _is_whole_jpeg(data: bytes, scan: int, *, progressive: bool) -> bool:
    """Whether the file ends with its end mark and, if it has one scan only, no stray marker cuts that short.

    ``scan`` is where the first scan's header starts, -1 where there is none. At a stray marker the decoder fills the
    rest with grey, which shows only as an error after the last row, too late for OpenCV. The scans of a progressive
    file are all parsed before its first row.
    """
    data = data.rstrip(b"\0")
    if not data.endswith(_END_OF_IMAGE) or scan < 0 or data.endswith(_PADDED_END):
        return False
    if progressive:
        return True
    body = np.frombuffer(data, np.uint8)[scan + len(_START_OF_SCAN) : -len(_END_OF_IMAGE)]
    markers = body[1:][body[:-1] == 0xFF]  # 00 stuffs a byte FF, FF fills, D0 to D7 restart
    restarts = _RESTART_INTERVAL in data[:scan]
    return bool(np.all((markers == 0x00) | (markers == 0xFF) | (restarts & (markers & 0xF8 == 0xD0))))


def _is_one_webp_chunk(data: bytes) -> bool:
    """Whether a WebP file is one still image and nothing else.

    Where bytes follow the image, be it metadata, OpenCV's decoder runs on into them when the image is damaged.
    """
    size = int.from_bytes(data[16:20], "little")
    return data[12:16] in (b"VP8 ", b"VP8L") and len(data) == 20 + size + size % 2


def _upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """(H,W,3) as stored -> as it is to be seen, by its EXIF orientation 1-8."""
    if orientation in _SIDEWAYS:
        image = image.swapaxes(0, 1)  # (W,H,3)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
