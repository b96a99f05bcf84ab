"""The Markdown table says what its figures are."""

from clippy_cli.evaluation.result import DataRecord
from clippy_cli.reporting.evaluation.markdown import markdown_rows
from tests.fixtures.evaluation import BETTER, document, segment_result


def test_one_row_a_model_one_column_a_set_and_metric():
    other = segment_result(BETTER, model="new", protocol={"name": "clippy", "resolution": 336})
    group = segment_result(task="group", headline="jaccard", metrics={"jaccard": None}, classes=())
    assert markdown_rows(document(segment_result(), other, group)) == (
        "| model | toy mIoU<br>protocol clippy, 448 / 336 px, 3 of 10 images "
        "| toy Jaccard (Hungarian, per image)<br>protocol clippy, 448 px, 3 of 10 images |\n"
        "|---|---:|---:|\n"
        "| tiny | 40.0 % | – |\n"
        "| new | **92.6 %** |  |\n"
    )
    assert markdown_rows(document()) == ""


def test_names_cannot_break_the_table():
    data = DataRecord(name="a|b\n<i>*c*", title="", images=1, available=1, complete=1, subset=False)
    lines = markdown_rows(document(segment_result(data=data, protocol={}))).splitlines()
    assert lines[0] == r"| model | a\|b &lt;i>\*c\* mIoU<br>1 image |"
    assert len(lines) == 3
