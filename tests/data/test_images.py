"""Every kind of file becomes the same upright RGB picture, or one clear error."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from clippy_cli.data.image_files import IMAGE_SUFFIXES, find_images
from clippy_cli.data.images import (
    decode_image,
    dense_size,
    read_image,
    resize_image,
    to_tensor,
)
from clippy_cli.errors import ClippyError
from tests.fixtures.data import encoded


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 256, (3, 5, 3), dtype=np.uint8), np.ones((8, 8, 1), dtype=np.uint8))  # (24,40,3)


def decoded(image: Image.Image, form: str = "PNG", **options: object) -> NDArray[np.uint8]:
    array = decode_image(encoded(image, form, **options), where="test")
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    assert array.flags.writeable
    return array


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_rgb_comes_back_exactly(picture: NDArray[np.uint8], form: str) -> None:
    np.testing.assert_array_equal(decoded(Image.fromarray(picture), form), picture)


def test_greyscale_and_one_bit_are_repeated_over_the_channels(picture: NDArray[np.uint8]) -> None:
    grey = picture[..., 0]
    np.testing.assert_array_equal(decoded(Image.fromarray(grey)), np.stack([grey] * 3, -1))
    black_white = Image.fromarray(np.where(grey > 127, 255, 0).astype(np.uint8)).convert("1")
    np.testing.assert_array_equal(decoded(black_white)[..., 1], np.where(grey > 127, 255, 0))


def test_alpha_lies_on_white(picture: NDArray[np.uint8]) -> None:
    alpha = np.zeros(picture.shape[:2], np.uint8)
    alpha[:, :8], alpha[:, 8:16] = 255, 51
    expected = np.rint(picture * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255))
    rgba = decoded(Image.fromarray(np.dstack([picture, alpha])))
    assert np.abs(rgba - expected).max() <= 1
    grey = decoded(Image.fromarray(np.dstack([picture[..., 0], alpha])))
    assert np.abs(grey[..., 2] - expected[..., 0]).max() <= 1


@pytest.mark.parametrize("transparent", [False, True])
def test_palette_images_show_their_colours(picture: NDArray[np.uint8], transparent: bool) -> None:
    image = Image.fromarray(picture).quantize(15)
    expected = np.array(image.convert("RGB"))
    if not transparent:
        np.testing.assert_array_equal(decoded(image), expected)
    else:
        expected[np.array(image) == 3] = 255
        np.testing.assert_array_equal(decoded(image, transparency=3), expected)


def test_colour_key_transparency_of_rgb_png(picture: NDArray[np.uint8]) -> None:
    key = tuple(int(value) for value in picture[0, 0])
    expected = picture.copy()
    expected[(picture == picture[0, 0]).all(-1)] = 255
    np.testing.assert_array_equal(decoded(Image.fromarray(picture), transparency=key), expected)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(form: str) -> None:
    deep = np.linspace(0, 65535, 32 * 16).astype(np.uint16).reshape(16, 32)
    expected = np.rint(deep / 257.0)
    np.testing.assert_array_equal(decoded(Image.fromarray(deep), form)[..., 0], expected)
    np.testing.assert_array_equal(decoded(Image.fromarray(deep.astype(np.int32)), "TIFF")[..., 0], expected)


def test_float_pixels_in_either_usual_range_and_no_other() -> None:
    unit = np.linspace(0, 1, 200, dtype=np.float32).reshape(10, 20)
    np.testing.assert_array_equal(decoded(Image.fromarray(unit), "TIFF")[..., 0], np.rint(unit * 255.0))
    with pytest.raises(ClippyError, match="brightness"):
        decoded(Image.fromarray(unit - 7), "TIFF")


def test_cmyk_keeps_its_colours(picture: NDArray[np.uint8]) -> None:
    cmyk = Image.fromarray(picture).convert("CMYK")
    np.testing.assert_array_equal(decoded(cmyk, "TIFF"), picture)
    assert np.abs(decoded(cmyk, "JPEG", quality=98).astype(int) - picture).mean() < 6


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(form: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    array = decoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(array, np.full((10, 20, 3), (255, 0, 0)))


ROTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", sorted(ROTATIONS))
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_turns_the_picture_upright(picture: NDArray[np.uint8], orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    array = decoded(Image.fromarray(picture), form, exif=exif, **options)
    np.testing.assert_array_equal(array, ROTATIONS[orientation](picture))


def test_damaged_exif_does_not_lose_the_photo(picture: NDArray[np.uint8]) -> None:
    data = encoded(Image.fromarray(picture), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f broken")
    assert decode_image(data, where="test").shape == picture.shape


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_files_are_never_a_half_picture(tmp_path: Path, form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), form)
    path = tmp_path / f"cut.{form.lower()}"
    for share in (0.05, 0.5, 0.9, 0.97):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ClippyError, match=r"cut\."):
            read_image(path)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height", "said"),
    [
        (60_000, 60_000, "too large"),
        (13_378, 13_378, "too large"),
        (12_000, 12_000, "truncated"),  # above Pillow's own warning, below the limit: only its body is at fault
        (101, 1, "narrower"),
        (10, 0, "not an image"),
    ],
)
def test_absurd_sizes_are_refused_from_the_header(width: int, height: int, said: str) -> None:
    with pytest.raises(ClippyError, match=said) as caught:
        decode_image(png_header(width, height), where="bomb.png")
    assert "bomb.png" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"<svg></svg>"])
def test_what_is_no_image_says_so(data: bytes) -> None:
    with pytest.raises(ClippyError, match=r"x\.png"):
        decode_image(data, where="x.png")


def test_missing_files_folders_and_pipes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name, said in (("absent.png", "no such file"), (".", "folder"), ("pipe.png", "not a regular file")):
        with pytest.raises(ClippyError, match=said):
            read_image(tmp_path / name)


def test_find_images_expands_sorts_and_keeps_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "sub/c.webp", "odd[1].png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert find_images(["."]) == [Path("a.png"), Path("b.JPG"), Path("odd[1].png")]
    assert find_images(["b.JPG", "*.png", "./a.png"]) == [Path("a.png"), Path("b.JPG"), Path("odd[1].png")]
    assert find_images(["**"]) == [Path("a.png"), Path("b.JPG"), Path("odd[1].png"), Path("sub/c.webp")]
    assert find_images([str(tmp_path / "*" / "*.webp")]) == [tmp_path / "sub" / "c.webp"]
    assert find_images(["odd[1].png", "gone.png", "no*.tif"]) == [Path("gone.png"), Path("no*.tif"), Path("odd[1].png")]
    assert find_images(["notes.txt"]) == [Path("notes.txt")]
    for nothing in (["no*.tif"], ["sub/*.png", "no*.tif"], []):
        with pytest.raises(ClippyError, match="No image found"):
            find_images(nothing)
    assert {".jpg", ".png", ".webp", ".tif"} <= IMAGE_SUFFIXES


@given(st.integers(1, 6000), st.integers(1, 6000), st.integers(1, 1024), st.sampled_from([8, 14, 16]))
def test_dense_size_is_the_nearest_multiple(height: int, width: int, short_side: int, patch: int) -> None:
    sides = dense_size(height, width, short_side, patch)
    for side, original in zip(sides, (height, width), strict=True):
        exact = original * short_side / min(height, width)
        assert side % patch == 0
        assert side >= patch
        assert abs(side - exact) <= patch / 2 + 1e-6 or side == patch


def test_resize_and_stack(picture: NDArray[np.uint8]) -> None:
    flat = np.full((30, 50, 3), 77, np.uint8)
    np.testing.assert_array_equal(resize_image(flat, 16, 8), np.full((16, 8, 3), 77))
    assert resize_image(picture, 24, 40) is picture
    tensor = to_tensor([picture, picture[::-1]])
    assert tensor.shape == (2, 3, 24, 40)
    assert tensor.is_contiguous()
    np.testing.assert_array_equal(tensor[1].numpy(), picture[::-1].transpose(2, 0, 1))
