from pathlib import Path

import pytest
from PIL import Image

from clippy_cli.data.captions import BrokenSampleError
from clippy_cli.data.class_captions import ClassFolderSource
from clippy_cli.data.identity import identify
from clippy_cli.errors import ClippyError


def test_the_words_of_a_class_are_the_captions_of_its_images(tmp_path: Path):
    for name in ("n02123045", "n02099601"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 10)).save(tmp_path / name / "a.png")
    (tmp_path / "n02123045" / "b.png").write_bytes(b"no image")
    source = ClassFolderSource(tmp_path)
    assert [source.captions(index)[1] for index in range(3)] == [
        "a photo of a Golden Retriever",
        "a photo of a tabby cat",
        "a photo of a tabby cat",
    ]
    assert source.read(1).captions[0] == "tabby cat" and source.read(1).image.shape == (10, 20, 3)
    with pytest.raises(BrokenSampleError, match=r"b\.png"):
        _ = source.read(2).image


def test_a_folder_without_classes_is_refused(tmp_path: Path):
    with pytest.raises(ClippyError, match="no class folders"):
        ClassFolderSource(tmp_path)
    with pytest.raises(ClippyError, match="no such folder"):
        ClassFolderSource(tmp_path / "absent")


def test_the_identity_follows_names_words_and_files(tmp_path: Path):
    for name in ("star", "ring"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "a.png")
    before = identify(ClassFolderSource(tmp_path)).digest()
    assert identify(ClassFolderSource(tmp_path)).digest() == before
    (tmp_path / "classes.yaml").write_text("ring: circle\n")
    renamed = identify(ClassFolderSource(tmp_path)).digest()
    (tmp_path / "ring" / "a.png").rename(tmp_path / "ring" / "b.png")
    assert len({before, renamed, identify(ClassFolderSource(tmp_path)).digest()}) == 3
