"""Files and folders that are whole or absent, folders that may be written to, names that stay in their folder."""

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clippy_cli.errors import ClippyError
from clippy_cli.files import claim_folder, prepare_folder, stays_below, whole_folder, write_whole


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


def test_a_folder_appears_when_it_is_whole_and_not_before(tmp_path):
    out = tmp_path / "deep" / "out"
    with whole_folder(out) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "a").read_text() == "1"
    assert out.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("raised", "seen", "says"),
    [
        (ClippyError("no parity"), ClippyError, "no parity"),
        (KeyboardInterrupt("now"), KeyboardInterrupt, "now"),
        (OSError(28, "No space left on device"), ClippyError, "Cannot write to .*No space left on device"),
    ],
)
def test_a_failed_folder_leaves_the_older_one_and_nothing_else(tmp_path, raised, seen, says):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")
    with pytest.raises(seen, match=says), whole_folder(tmp_path / "out", replace=True) as folder:
        (folder / "a").write_text("half")
        raise raised
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "a").read_text() == "old"


def test_an_older_folder_is_replaced_as_a_whole_but_for_what_somebody_put_there(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    out = tmp_path / "out"
    out.symlink_to("elsewhere")
    for content in ("old", "new"):
        with whole_folder(out, replace=True) as folder:
            (folder / "weights").write_text(content)
            (folder / "tokenizer").mkdir()
            (folder / "tokenizer" / content).touch()
        (out / "README.md").touch()
    assert out.is_symlink() and (out / "weights").read_text() == "new"
    assert sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "elsewhere").rglob("*")) == [
        *("elsewhere/README.md", "elsewhere/tokenizer", "elsewhere/tokenizer/new", "elsewhere/weights")
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "out"]


def test_a_folder_keeps_hidden_files_and_what_came_meanwhile(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").touch()
    with whole_folder(tmp_path) as folder:
        (folder / "a").touch()
    assert (tmp_path / ".git" / "HEAD").is_file() and (tmp_path / "a").is_file()
    out = tmp_path / "out"
    with pytest.raises(ClippyError, match="not empty: it holds theirs"), whole_folder(out) as folder:
        (folder / "a").touch()
        out.mkdir()
        (out / "theirs").write_text("theirs")
    assert (out / "theirs").read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", "a", "out"]


@pytest.mark.parametrize("how", [{}, {"replace": True}, {"overwrite": True}])
def test_a_file_in_the_place_of_a_folder_stays(tmp_path, how):
    (tmp_path / "out").write_text("theirs")
    with pytest.raises(ClippyError, match="a file"), whole_folder(tmp_path / "out", **how) as folder:
        (folder / "a").touch()
    assert (tmp_path / "out").read_text() == "theirs" and len(list(tmp_path.iterdir())) == 1


def test_pipes_and_open_files_are_written_to_and_stay(tmp_path, capfd):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, lambda stream: stream.write(b"through"))
    assert os.read(reader, 100) == b"through" and pipe.is_fifo()
    os.close(reader)
    with (tmp_path / "file").open("wb") as stream:  # as of: clippy ... --csv /dev/fd/3 3> file
        for text in (b"one", b"two"):
            write_whole(Path(f"/dev/fd/{stream.fileno()}"), lambda end, text=text: end.write(text))
    assert (tmp_path / "file").read_bytes() == b"onetwo"
    write_whole(Path("/dev/stdout"), lambda stream: stream.write(b"printed"))
    assert capfd.readouterr().out == "printed"
    with pytest.raises(ClippyError, match="cannot be written"):
        write_whole(Path("/dev/fd/987"), lambda stream: None)


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "link").symlink_to("theirs")
    write_whole(tmp_path / "link", lambda stream: stream.write(b"ours"))
    assert (tmp_path / "theirs").read_text() == "theirs" and not (tmp_path / "link").is_symlink()


def test_a_used_folder_is_refused_and_an_empty_one_taken(tmp_path):
    (tmp_path / ".DS_Store").touch()
    out = tmp_path / "out"
    out.mkdir()
    with whole_folder(out) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(ClippyError, match="not empty: it holds a"), whole_folder(out):
        pass
    with pytest.raises(ClippyError, match="is a file, not a directory"), whole_folder(out / "a"):
        pass
    assert [path.name for path in out.iterdir()] == ["a"]


def test_a_claimed_folder_can_be_continued_and_holds_nothing_else(tmp_path):
    out = tmp_path / "new"
    assert claim_folder(out, "plan.json", b"first", "Elsewhere.") is None
    (out / "image.png").touch()
    assert claim_folder(out, "plan.json", b"second", "Elsewhere.") == b"first"
    assert (out / "plan.json").read_bytes() == b"first"
    with pytest.raises(ClippyError, match=r"not empty: it holds image\.png, plan\.json") as caught:
        claim_folder(out, "other.json", b"", "Elsewhere.")
    assert caught.value.hint == "Elsewhere."
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".plan.json-1-2.part").touch()  # of a killed process
    assert claim_folder(tmp_path / "hidden", "plan.json", b"", "Elsewhere.") is None


def test_results_need_a_folder_that_can_be_written(tmp_path):
    prepare_folder(tmp_path / "deep" / "out")
    assert (tmp_path / "deep" / "out").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ClippyError, match="cannot be made"):
        prepare_folder(tmp_path / "file")


@given(st.text("a./\\\0 ", max_size=8))
def test_accepted_names_stay_in_their_folder(name):
    plain = PurePosixPath(name)
    harmless = bool(name) and not plain.is_absolute() and ".." not in plain.parts and str(plain) == name != "."
    assert stays_below(name) == (harmless and not set(name) & set("\\\0"))


def test_a_folder_in_use_is_written_to_only_when_asked_and_keeps_what_else_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "config.json").write_text("old")
    with pytest.raises(ClippyError, match=r"holds config\.json, notes\.txt") as refused, whole_folder(tmp_path):
        pass
    assert "--overwrite" in refused.value.hint
    with pytest.raises(RuntimeError), whole_folder(tmp_path, overwrite=True) as folder:
        (folder / "config.json").write_text("half")
        raise RuntimeError
    with whole_folder(tmp_path, overwrite=True) as folder:
        (folder / "config.json").write_text("new")
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "vocab.txt").write_text("new")
    found = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.*")}
    assert found == {"notes.txt": "mine", "config.json": "new", "tokenizer/vocab.txt": "new"}
