"""Pictures decoded by OpenCV against Pillow: the same pixels, the same broken files, the right reduced size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from clippy_cli.data.images import decode_image
from clippy_cli.data.pictures import ArrayPicture, EncodedPicture
from clippy_cli.errors import ClippyError
from tests.fixtures.data import encoded, noise

FORMS = {
    "jpeg": ("JPEG", {}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "webp": ("WEBP", {}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "png": ("PNG", {}),
}


def smooth(height: int, width: int) -> Image.Image:
    """A picture without the finest detail, such as a photo."""
    return Image.fromarray(noise(height, width)).filter(ImageFilter.GaussianBlur(3))


FILES = {name: encoded(smooth(45, 70), form, **options) for name, (form, options) in FORMS.items()}


def by_pillow(data: bytes) -> NDArray[np.uint8] | None:
    try:
        return decode_image(data, where="x")
    except ClippyError:
        return None


def by_us(data: bytes) -> NDArray[np.uint8] | None:
    try:
        picture = EncodedPicture(data, "x")
        pixels = picture.pixels()
    except ClippyError:
        return None
    assert pixels.shape == (picture.height, picture.width, 3)
    return pixels


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P", "1", "I;16"])
def test_every_mode_has_pillows_pixels(name: str, mode: str) -> None:
    form, options = FORMS[name]
    image = Image.fromarray(np.arange(45 * 70, dtype=np.uint16).reshape(45, 70)) if mode == "I;16" else smooth(45, 70)
    try:
        data = encoded(image if mode == "I;16" else image.convert(mode), form, **options)
    except OSError as error:
        assert "cannot write mode" in str(error)
        return
    pixels = by_us(data)
    assert pixels is not None and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, by_pillow(data))


@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("name", FORMS)
def test_orientation_turns_whole_and_reduced_pictures_alike(name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    form, options = FORMS[name]
    data = encoded(smooth(45, 70), form, exif=exif, **options)
    picture = EncodedPicture(data, "x")
    whole, half = picture.pixels(), picture.pixels(2)
    np.testing.assert_array_equal(whole, by_pillow(data))
    assert (picture.height, picture.width) == whole.shape[:2]
    small = (whole.shape[1], whole.shape[0])
    back = np.array(Image.fromarray(half).resize(small, Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(back - whole).mean() < 4  # against 20 and more for any other orientation


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 3), (37, 53), (64, 96)])
def test_only_jpegs_are_reduced_and_sides_rounded_up(height: int, width: int, reduction: int) -> None:
    def shape(form: str) -> tuple[int, ...]:
        return EncodedPicture(encoded(noise(height, width), form), "x").pixels(reduction).shape

    assert shape("JPEG") == (-(-height // reduction), -(-width // reduction), 3)
    assert shape("WEBP") == shape("PNG") == ArrayPicture(noise(height, width)).pixels(reduction).shape
    assert shape("PNG") == (height, width, 3)


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_a_reduced_jpeg_is_the_mean_of_its_pixels(reduction: int) -> None:
    picture = EncodedPicture(encoded(smooth(160, 240), "JPEG", quality=90), "x")
    blocks = picture.pixels().reshape(160 // reduction, reduction, 240 // reduction, reduction, 3)
    assert np.abs(picture.pixels(reduction) - blocks.mean(axis=(1, 3))).mean() < 1.5


@given(st.sampled_from(sorted(FORMS)), st.floats(0, 1, exclude_max=True), st.sampled_from([b"", bytes(9), b"\xff\xd9"]))
def test_a_truncated_file_is_broken_unless_pillow_finds_it_whole(name: str, share: float, tail: bytes) -> None:
    data = FILES[name][: int(len(FILES[name]) * share)] + tail
    expected, pixels = by_pillow(data), by_us(data)
    assert (expected is None) == (pixels is None)
    if expected is not None:
        np.testing.assert_array_equal(pixels, expected)


@given(st.sampled_from(sorted(FORMS)), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3))))
def test_damage_is_never_passed_over_where_pillow_reports_it(name: str, changes: list[tuple[float, bytes]]) -> None:
    data = bytearray(FILES[name])
    for share, new in changes:
        at = int(share * len(data))
        data[at : at + len(new)] = new
    expected, pixels = by_pillow(bytes(data)), by_us(bytes(data))
    assert (expected is None) == (pixels is None)
    if expected is not None:
        np.testing.assert_array_equal(pixels, expected)


def test_a_damaged_webp_does_not_borrow_from_the_bytes_behind_it() -> None:
    data = bytearray(FILES["lossless webp"])
    data[1653], data[1118], data[-1] = 0x03, 0x2F, 0x13
    assert by_pillow(bytes(data) + b"\0") is None
    assert by_us(bytes(data) + b"\0") is None


@pytest.mark.parametrize("marker", [b"\xff\xc0", b"\xff\xda", b"\xff\xd9", b"\xff\x01"])
def test_a_stray_marker_in_a_scan_is_judged_by_pillow(marker: bytes) -> None:
    data = FILES["jpeg"]
    middle = (data.rindex(b"\xff\xda") + len(data)) // 2
    data = data[:middle] + marker + data[middle + 2 :]
    expected, pixels = by_pillow(data), by_us(data)
    assert (expected is None) == (pixels is None)


def test_first_frame_of_an_animation_and_trailing_bytes() -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime")]
    moving, stereo = (encoded(frames[0], form, save_all=True, append_images=frames[1:]) for form in ("WEBP", "MPO"))
    still = FILES["jpeg"]
    for data in (moving, stereo, still + b"trailing bytes", still + bytes(100)):
        np.testing.assert_array_equal(by_us(data), by_pillow(data))


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", FILES["jpeg"][:40], FILES["webp"][:20]])
def test_what_is_no_picture_says_so(data: bytes) -> None:
    with pytest.raises(ClippyError, match=r"photo\.jpg: "):
        EncodedPicture(data, "photo.jpg")
    wide = encoded(noise(2, 300), "JPEG")
    with pytest.raises(ClippyError, match="narrower"):
        EncodedPicture(wide, "photo.jpg")
