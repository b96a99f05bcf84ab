"""Notices: counted by reason in any order of threads, printed in one form, never breaking JSON."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices, printable


def test_equal_reasons_are_counted_together_with_the_first_examples():
    notices = Notices()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: notices.skipped("row", "too many fields", f"line {index}"), range(100)))
    notices.assumed("mask", "0 and 255 read as background and object", "m.png")
    notices.ignored("folder", "a system folder", "__MACOSX", "@eaDir")
    lines = [str(notice) for notice in notices]
    assert lines[0].startswith("100 rows skipped: too many fields (line ") and lines[0].endswith(", ...)")
    assert lines[1:] == [
        "2 folders ignored: a system folder (__MACOSX, @eaDir)",
        "1 mask: 0 and 255 read as background and object (m.png)",
    ]
    assert [str(notice) for notice in pickle.loads(pickle.dumps(notices))] == lines
    merged = Notices(notices)
    merged.update(notices)
    assert next(iter(merged)).count == 200


def test_only_what_was_asked_for_makes_a_run_incomplete_and_strict_refuses_all():
    notices = Notices()
    notices.refuse("The folder")
    notices.ignored("folder", "a system folder", "__MACOSX")
    notices.refuse("The folder")
    assert not notices.incomplete
    notices.assumed("mask", "0 and 255 read as background and object", "m.png")
    with pytest.raises(ClippyError, match="1 mask: 0 and 255"):
        notices.refuse("The folder")
    notices.skipped("file", "type .heic is not read", count=3)
    assert notices.incomplete


def test_any_name_is_printable_and_valid_json():
    name = b"caf\xe9\x1b[31m\xff.jpg".decode("utf-8", "surrogateescape")
    assert printable(name) == "caf\\xe9\\x1b[31m\\xff.jpg"
    assert printable("犬 é.jpg") == "犬 é.jpg"
    notices = Notices()
    notices.skipped("file", "not read", name)
    json.dumps(notices.records(), ensure_ascii=False).encode("utf-8")
