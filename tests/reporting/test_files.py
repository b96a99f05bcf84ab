"""Names that do not collide."""

import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clippy_cli.reporting.files import ENDINGS, GROUP_SUFFIX, WITH_REGIONS, output_stems, safe_name


@pytest.mark.parametrize(
    ("paths", "stems"),
    [
        (["a/dog.jpg", "b/cat.jpg"], ["dog", "cat"]),
        (["a/dog.jpg", "b/dog.jpg", "b/cat.jpg"], ["a_dog", "b_dog", "cat"]),
        (["x/a/dog.jpg", "y/a/dog.jpg"], ["x_a_dog", "y_a_dog"]),
        (["a/dog.jpg", "a/dog.png"], ["dog_jpg", "dog_png"]),
        (["a/Dog.jpg", "b/dog.jpg"], ["a_Dog", "b_dog"]),
        (["a/dog.jpg", "a/DOG.jpg"], None),
        (["a/b/c.jpg", "a_b/c.jpg", "a/b_c.jpg", "z/a_b_c.png"], None),
    ],
)
def test_stems(paths, stems):
    found = output_stems([Path(path) for path in paths])
    if stems is not None:
        assert found == stems
    assert len({stem.casefold() for stem in found}) == len(paths)


NAMES = st.text("aAb_", min_size=1, max_size=3)
PATHS = st.builds(
    lambda folders, name, end: Path(*folders, name + end),
    st.lists(NAMES, max_size=3),
    NAMES,
    st.sampled_from([".jpg", ".JPG", ".png"]),
)


@given(st.lists(PATHS, unique=True, max_size=8))
def test_stems_never_collide(paths):
    stems = output_stems(paths)
    assert len({stem.casefold() for stem in stems}) == len(paths)
    assert stems == output_stems(paths)


@given(st.lists(st.text(max_size=120), max_size=6))
def test_labels_become_harmless_different_file_names(labels):
    taken: set[str] = set()
    names = [safe_name(label, taken) for label in labels]
    assert len({name.casefold() for name in names}) == len(labels)
    for name in names:
        assert name
        assert not set(name) & set(string.punctuation.replace("-", "").replace("_", "") + " \0\n")
        assert len(name) <= 90


@pytest.mark.parametrize("letter", ["y", "\u00fc", "\U0001f600", "\udce9"])
def test_stems_leave_room_for_every_ending(letter, tmp_path):
    name = letter * (250 // len(os.fsencode(letter)))
    stems = output_stems([Path("a", f"{name}.jpg"), Path("b", f"{name}.jpg"), Path("plain.jpg")])
    assert len(set(stems)) == 3 and stems[2] == "plain"
    for stem in stems:
        (tmp_path / f"{stem}{WITH_REGIONS}{GROUP_SUFFIX}{ENDINGS['overlay']}").touch()
