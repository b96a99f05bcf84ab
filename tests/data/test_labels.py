"""The label list of the command line, read and refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clippy_cli.data.labels import Label, Vocabulary, parse_labels, read_labels
from clippy_cli.data.prompts import resolve_templates
from clippy_cli.errors import ClippyError

OTHER_FORMS = ";，、،\"'“”„«»`[."  # what lists, quotes and file names are made of, which are refused
words = st.text(
    st.characters(exclude_characters=f",|{OTHER_FORMS}", exclude_categories=("Z", "C")), min_size=1, max_size=8
)


@given(st.lists(st.lists(words, min_size=1, max_size=3), min_size=1, max_size=5), st.sampled_from(["", " ", "  "]))
def test_what_is_written_is_read_back(groups: list[list[str]], space: str) -> None:
    flat = [word.casefold() for group in groups for word in group]
    text = f"{space},{space}".join(f"{space}|{space}".join(group) for group in groups)
    if len(set(flat)) < len(flat):
        with pytest.raises(ClippyError, match="twice"):
            parse_labels(text)
    else:
        assert parse_labels(text) == tuple(Label(group[0], tuple(group)) for group in groups)


@pytest.mark.parametrize(
    "text", ["", "  ", ",", "dog,", ",dog", "dog,,cat", "dog||puppy", "|dog", "dog| ,cat", "\u200b", "dog,\x07"]
)
def test_empty_labels_are_refused(text: str) -> None:
    with pytest.raises(ClippyError, match=r"Empty|No label"):
        parse_labels(text)


def test_a_byte_order_mark_is_no_part_of_a_label() -> None:
    assert parse_labels("\ufeffdog, \u200bcat") == parse_labels("dog,cat")


@pytest.mark.parametrize("text", ["dog,cat,dog", "dog,Dog", "dog|puppy,cat|PUPPY", "dog|dog", "Straße,STRASSE"])
def test_doubles_are_refused_in_any_case(text: str) -> None:
    with pytest.raises(ClippyError, match="twice"):
        parse_labels(text)


def test_spaces_inside_a_label_are_kept_single() -> None:
    assert parse_labels("fire   hydrant , red\tcar") == (
        Label("fire hydrant", ("fire hydrant",)),
        Label("red car", ("red car",)),
    )


def test_vocabulary_flattens_labels_then_background() -> None:
    vocabulary = Vocabulary(parse_labels("dog|puppy,grass"), parse_labels("wall|fence,sky"))
    assert vocabulary.texts == ("dog", "puppy", "grass", "wall", "fence", "sky")
    assert vocabulary.owner == (0, 0, 1, -1, -1, -1)
    assert Vocabulary(parse_labels("a")).owner == (0,)


def test_a_word_cannot_be_label_and_background() -> None:
    with pytest.raises(ClippyError, match="'Sky' occurs twice"):
        Vocabulary(parse_labels("dog,sky"), parse_labels("Sky"))


def test_labels_typed_under_the_c_locale_are_those_of_utf_8() -> None:
    typed = "raccoon, 猫|Käse"
    assert parse_labels(typed.encode().decode("ascii", "surrogateescape")) == parse_labels(typed)
    assert read_labels(["猫".encode().decode("ascii", "surrogateescape")]) == read_labels(["猫"])
    for text in (b"caf\xe9".decode("ascii", "surrogateescape"), "\ud800"):
        with pytest.raises(ClippyError, match="not UTF-8"):
            parse_labels(text)
    assert resolve_templates("ein Foto {} für".encode().decode("ascii", "surrogateescape")) == ("ein Foto {} für",)
