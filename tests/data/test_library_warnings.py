"""What libtiff, libpng, libjpeg and Pillow say by themselves of odd files never reaches the user."""

import io
import warnings
from contextlib import suppress

import cv2
import numpy as np
import pytest
from PIL import Image

from clippy_cli.data.images import decode_image
from clippy_cli.data.pictures import EncodedPicture
from clippy_cli.errors import ClippyError
from tests.fixtures.data import noise


def saved(kind, image=None, **options):
    stream = io.BytesIO()
    (Image.fromarray(noise(32, 32)) if image is None else image).save(stream, kind, **options)
    return stream.getvalue()


def with_bytes_before_its_end(jpeg):
    return jpeg[:-2] + bytes(400) + jpeg[-2:]


def damaged(tiff):
    return tiff[:200] + bytes(60) + tiff[260:]


FILES = {
    "a tag that libtiff does not know": saved("TIFF", compression="tiff_lzw", tiffinfo={65000: "x"}),
    "damaged LZW": damaged(saved("TIFF", compression="tiff_lzw")),
    "bytes that are none of the JPEG's": with_bytes_before_its_end(saved("JPEG")),
    "a color profile that libpng refuses": saved("PNG", icc_profile=b"garbage" * 40),
    "a palette with transparency": saved(
        "PNG", Image.fromarray(noise(32, 32)).quantize(8), transparency=bytes([0, 128, *[255] * 6])
    ),
    "EXIF that is cut short": saved("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"),
}


@pytest.mark.parametrize("name", FILES)
def test_libraries_are_silent_and_what_matters_is_clippys_own(name, capfd):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for read in (lambda data: decode_image(data, where="a"), lambda data: EncodedPicture(data, "a").pixels()):
            with suppress(ClippyError):
                read(FILES[name])
    printed = capfd.readouterr()
    assert (printed.out, printed.err, [str(one.message) for one in warned]) == ("", "", [])


def test_the_files_are_such_that_libraries_speak_of(capfd):
    """Where none of them does any more, the test above shows nothing."""
    cv2.imdecode(np.frombuffer(FILES["bytes that are none of the JPEG's"], np.uint8), cv2.IMREAD_COLOR)
    cv2.imdecode(np.frombuffer(FILES["a color profile that libpng refuses"], np.uint8), cv2.IMREAD_COLOR)
    printed = capfd.readouterr().err
    assert "extraneous bytes" in printed and "iCCP" in printed
    with (
        pytest.warns(UserWarning, match="Transparency"),
        Image.open(io.BytesIO(FILES["a palette with transparency"])) as image,
    ):
        image.convert("RGB")
