"""Files that are whole or absent, names that stay in their folder."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clippy_cli.errors import ClippyError
from clippy_cli.files import stays_below, write_whole


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_whole(tmp_path / "new" / "a.txt", lambda stream: stream.write(b"old"))

    def interrupted(stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, interrupted)
    assert path.read_bytes() == b"old"
    assert [child.name for child in path.parent.iterdir()] == ["a.txt"]


def test_what_the_system_refuses_is_explained(tmp_path):
    def full(stream):
        raise OSError(28, "No space left on device")

    with pytest.raises(ClippyError, match="No space left on device"):
        write_whole(tmp_path / "a.png", full)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(ClippyError, match="cannot be written"):
        write_whole(tmp_path / "file" / "a.png", lambda stream: None)


@given(st.text("a./\\\0 ", max_size=8))
def test_accepted_names_stay_in_their_folder(name):
    plain = PurePosixPath(name)
    harmless = bool(name) and not plain.is_absolute() and ".." not in plain.parts and str(plain) == name != "."
    assert stays_below(name) == (harmless and not set(name) & set("\\\0"))
