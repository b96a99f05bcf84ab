"""Suites: which sets, the mean over them, and the tables that papers can take over."""

import re

import pytest

from clippy_cli.data.benchmarks.catalogue import benchmark_names
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.result import PublishedFigure
from clippy_cli.evaluation.suites import OpenSuite, Suite, open_suite
from clippy_cli.reporting.evaluation.suite import suite_latex, suite_markdown, suite_table
from tests.fixtures.evaluation import BETTER, document, segment_result

TWO = Suite(title="two sets", task="segment", metric="miou", sets={"toy": "T_1", "other": "O&P"})


def result(name, value, model="tiny", published=()):
    figures = tuple(
        PublishedFigure(model=who, metric="miou", value=figure, source="paper", comparable=comparable)
        for who, figure, comparable in published
    )
    return segment_result(BETTER, name=name, model=model, metrics={"miou": value}, published=figures)


def tables(results, missing=None):
    opened = OpenSuite("pair", TWO, tuple(TWO.sets), missing or {})
    made = document(*results).model_copy(update={"suite": opened.record(results)})
    return suite_table(made)


def test_the_eight_sets_are_of_the_catalogue_and_those_at_hand_are_found(tmp_path):
    with pytest.raises(ClippyError, match="None of the 8 sets of ovss8 is there: voc "):
        open_suite("ovss8", tmp_path)
    with pytest.raises(ClippyError, match="did you mean 'ovss8'"):
        open_suite("ovs8", tmp_path)
    file = tmp_path / "mine.yaml"
    file.write_text("title: mine\ntask: segment\nmetric: miou\nsets: {scenes: S, context59: C59}\n", encoding="utf-8")
    mine = open_suite(str(file), tmp_path)
    assert (mine.name, mine.found) == ("mine", ("scenes",))
    assert set(mine.missing) == {"context59"} and str(tmp_path) in mine.missing["context59"]
    file.write_text("title: mine\ntask: segment\nmetric: jaccard\nsets: {scenes: S}\n", encoding="utf-8")
    with pytest.raises(ClippyError, match="segment has no metric 'jaccard'"):
        open_suite(str(file), tmp_path)


def test_every_set_of_a_shipped_suite_is_in_the_catalogue():
    from clippy_cli.evaluation.suites import _shipped

    assert list(_shipped()["ovss8"].sets.values()) == ["V21", "C60", "Object", "V20", "C59", "Stuff", "City", "ADE"]
    assert all(name in benchmark_names() for suite in _shipped().values() for name in suite.sets)


def test_the_average_is_of_all_sets_or_there_is_none():
    whole = OpenSuite("pair", TWO, ("toy", "other"), {}).record([result("toy", 0.4), result("other", 0.25)])
    assert whole.rows[0].values == (0.4, 0.25) and whole.rows[0].average == pytest.approx(0.325)
    part = OpenSuite("pair", TWO, ("toy",), {"other": "looked for x"}).record([result("toy", 0.4)])
    assert part.rows[0].values == (0.4, None) and part.rows[0].average is None
    undefined = OpenSuite("pair", TWO, ("toy", "other"), {}).record([result("toy", 0.4), result("other", None)])
    assert undefined.rows[0].average is None


def test_tables_mark_the_best_of_ours_and_what_is_not_comparable():
    published = [("Theirs_2", 50.5, True), ("Partial", 99.0, True)], [("Theirs_2", 30.0, False)]
    table = tables(
        [
            result("toy", 0.4, published=published[0]),
            result("other", 0.25, published=published[1]),
            result("toy", 0.35, model="new"),
            result("other", 0.5, model="new"),
        ]
    )
    rows = [[cell.text for cell in row] for row in (*table.ours, *table.published)]
    assert rows == [
        ["tiny", "40.0", "25.0", "32.5"],
        ["new", "35.0", "50.0", "42.5"],
        ["Theirs_2", "50.5", "30.0†", "40.2†"],
    ]
    markdown = suite_markdown(table)
    assert "| model | T\\_1 | O&amp;P | average |" in markdown
    assert "| new | 35.0 | **50.0** | **42.5** |" in markdown and "| tiny | **40.0** |" in markdown
    latex = suite_latex(table)
    assert r"model & T\_1 & O\&P & average \\" in latex
    assert r"new & 35.0 & \textbf{50.0} & \textbf{42.5} \\" in latex
    assert r"Theirs\_2 & 50.5 & 30.0$^\dagger$ & 40.2$^\dagger$ \\" in latex
    body = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {3}


def test_what_is_missing_is_named_below_the_table():
    notes = tables([result("toy", 0.4)], {"other": "looked for data/other"}).notes
    assert "Not measured, so that there is no average: other (looked for data/other)" in notes
    assert any(note.startswith("Measured on part of the images: toy 3 of 10") for note in notes)
