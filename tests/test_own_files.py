"""Only what clippy wrote is replaced: known by content, and by the photo that it was made from."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from clippy_cli.errors import ClippyError
from clippy_cli.files import write_whole
from clippy_cli.own_files import MANIFEST, OwnFiles, own_files, replacing_own


def put(path, text, made_from="a.jpg", **options):
    with replacing_own(path.parent, made_from, **options):
        write_whole(path, lambda stream: stream.write(text.encode()))


def test_own_files_are_replaced_and_others_are_not(tmp_path):
    mine, theirs = tmp_path / "a_mask.png", tmp_path / "a.json"
    theirs.write_text("labelme's")
    put(mine, "one")
    put(mine, "two")
    with pytest.raises(ClippyError, match=r"a\.json: not written by clippy"):
        put(theirs, "ours")
    with pytest.raises(ClippyError, match=r"a_mask\.png: made from a\.jpg"):
        put(mine, "of another photo", made_from="b.jpg")
    mine.write_text("corrected by hand")
    with pytest.raises(ClippyError, match=r"a_mask\.png: changed since clippy wrote it") as refused:
        put(mine, "three")
    assert "--overwrite" in refused.value.hint
    assert (theirs.read_text(), mine.read_text()) == ("labelme's", "corrected by hand")
    put(mine, "three", overwrite=True)
    put(mine, "four")
    assert mine.read_text() == "four"


def test_what_is_known_survives_a_copy_another_process_and_a_kill(tmp_path):
    path = tmp_path / "a.txt"
    put(path, "one")
    path.touch()  # another time, the same content
    assert OwnFiles(tmp_path).is_own(path)
    with replacing_own(tmp_path) as own:  # noted, and killed before the file got its name
        (tmp_path / "part").write_text("two")
        own.add(path, tmp_path / "part", "a.jpg")
    assert OwnFiles(tmp_path).is_own(path) and own_files(tmp_path).is_own(path)
    with (tmp_path / MANIFEST).open("ab") as stream:
        stream.write(b'{"file": "a.txt", "size": "x"}\nno json\n{"cut sho')
    assert OwnFiles(tmp_path).is_own(path)
    (tmp_path / MANIFEST).unlink()
    assert not own_files(tmp_path).is_own(path)


def test_any_name_and_any_thread(tmp_path):
    strange = tmp_path / b"caf\xe9\n.txt".decode("utf-8", "surrogateescape")
    put(strange, "one")
    put(strange, "two")
    (tmp_path / "other").mkdir()
    with replacing_own(tmp_path / "other"):  # files of other folders are none of its business
        write_whole(strange, lambda stream: stream.write(b"three"))
    names = [tmp_path / f"{index}.txt" for index in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: put(path, path.name), names * 3))
    assert all(OwnFiles(tmp_path).is_own(path) for path in names)
