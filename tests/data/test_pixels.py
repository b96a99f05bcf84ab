"""Values whose range a file does not say: read right, or one notice with the range that was found."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from clippy_cli.data.images import as_pixels, decode_image
from clippy_cli.data.pixels import profile_name
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices
from tests.fixtures.data import encoded, noise

RAMP = np.linspace(0, 1, 24 * 32).reshape(24, 32)


def decoded(data: bytes) -> tuple[NDArray[np.uint8], list[str]]:
    notices = Notices()
    return decode_image(data, where="x", notices=notices), [str(notice) for notice in notices]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "color.png", "color.tiff"])
def test_fewer_bits_in_files_of_sixteen_are_scaled_by_their_own_range(bits: int, form: str) -> None:
    deep = np.rint(RAMP * (2**bits - 1)).astype(np.uint16)
    if form.startswith("color"):
        written, data = cv2.imencode(form[5:], np.dstack([deep // 2, deep // 2, deep]))  # blue, green, red
        assert written
        image, told = decoded(data.tobytes())
        assert np.abs(image[..., 1] - RAMP * 127).max() <= 1.5
    else:
        image, told = decoded(encoded(Image.fromarray(deep), form))
    assert np.abs(image[..., 0] - RAMP * 255).max() <= 1
    assert len(told) == (0 if bits == 16 else 1)
    assert bits == 16 or (f"{bits} bits" in told[0] and f"0 to {2**bits - 1}" in told[0])


def test_a_tiff_may_declare_its_highest_value() -> None:
    image, told = decoded(encoded(Image.fromarray((RAMP * 1000).astype(np.uint16)), "TIFF", tiffinfo={281: 4095}))
    assert (image.max(), told) == (62, [])


@pytest.mark.parametrize(
    ("low", "high", "limit"), [(0.0, 1.003, 1), (-0.01, 1.0, 1), (-1.0, 255.5, 255), (0.0, 200.0, 255)]
)
def test_floats_that_overshoot_are_clipped_and_said(low: float, high: float, limit: float) -> None:
    values = (low + RAMP * (high - low)).astype(np.float32)
    image, told = decoded(encoded(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(image[..., 0], np.rint(np.clip(values / limit, 0, 1) * 255))
    assert len(told) == (low < 0 or high > limit)


@pytest.mark.parametrize("high", [1.5, 9.0, 300.0])
def test_floats_of_no_known_range_are_refused(high: float) -> None:
    values = RAMP.astype(np.float32)
    values[-1, -1] = high
    with pytest.raises(ClippyError, match="no agreed meaning as brightness"):
        decoded(encoded(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_no_numbers_are_counted(value: float) -> None:
    values = np.full((4, 5), 0.5, np.float32)
    values[1, :3] = value
    with pytest.raises(ClippyError, match="3 of 20 pixel values are NaN or inf"):
        decoded(encoded(Image.fromarray(values), "TIFF"))


def test_the_transparent_value_of_deep_grey_is_white() -> None:
    deep = np.rint(RAMP * 65535).astype(np.uint16)
    image, told = decoded(encoded(Image.fromarray(deep), "PNG", transparency=int(deep[3, 4])))
    expected = np.rint(deep / 257.0)
    expected[3, 4] = 255
    np.testing.assert_array_equal(image[..., 2], expected)
    assert not told


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "PNG"])
def test_further_frames_are_said(form: str) -> None:
    first = Image.fromarray(noise(8, 8))
    assert "several frames" in decoded(encoded(first, form, save_all=True, append_images=[first.rotate(90)]))[1][0]
    assert not decoded(encoded(first, form))[1]


def test_color_profiles_are_not_applied_and_said_but_for_srgb() -> None:
    photo = Image.fromarray(noise())
    profiles = {name: ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes() for name in ("sRGB", "LAB")}
    for form in ("PNG", "JPEG", "TIFF"):
        assert not decoded(encoded(photo, form, icc_profile=profiles["sRGB"]))[1]
        (told,) = decoded(encoded(photo, form, icc_profile=profiles["LAB"]))[1]
        assert "color profile" in told and profile_name(profiles["LAB"]) in told
    assert [profile_name(profiles["LAB"][:cut]) for cut in (0, 130, 140)] == ["", "", ""]
    assert "without a name" in decoded(encoded(photo, "PNG", icc_profile=b"odd"))[1][0]


def test_cmyk_without_adobes_marker_is_an_assumption() -> None:
    data = encoded(Image.fromarray(noise(16, 16)).convert("CMYK"), "JPEG", quality=95)
    marker = data.index(b"\xff\xee")
    length = int.from_bytes(data[marker + 2 : marker + 4], "big")
    image, told = decoded(data)
    bare, told_bare = decoded(data[:marker] + data[marker + 2 + length :])
    np.testing.assert_array_equal(image, bare)
    assert (len(told), len(told_bare)) == (0, 1)


def test_a_pillow_image_tells_the_same() -> None:
    notices = Notices()
    as_pixels(Image.fromarray(np.rint(RAMP * 1023).astype(np.uint16)), where="mine", notices=notices)
    assert "10 bits" in str(next(iter(notices)))
