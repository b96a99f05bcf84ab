"""Tables in the terminal, and what importing them costs."""

import subprocess
import sys

from clippy_cli.commands.evaluation_tables import print_result, print_summary
from clippy_cli.evaluation.result import ClassScore, DataRecord
from tests.fixtures.evaluation import BETTER, document, segment_result


def test_a_result_names_its_metric_and_what_is_undefined(capsys):
    failed = tuple(f"image {i} is truncated" for i in range(5))
    data = DataRecord(name="toy", title="Toy", images=3, available=8, complete=10, subset=True, failed=failed)
    print_result(segment_result(data=data))
    shown = capsys.readouterr().out
    assert "toy  segment, tiny, 3 of 10 images" in shown
    assert "mIoU 40.0 %   pixel accuracy –" in shown
    assert "not annotated in these images: <script>" in shown
    assert "protocol: clippy; resolution: 448; window: none; templates: a, b" in shown
    assert "published mIoU: Theirs 50.8" in shown
    assert "published mIoU, not comparable (3 of 10): Other 61.25" in shown
    assert "no published figure" not in shown
    assert "5 could not be used and do not count: image 0 is truncated; image 1" in shown
    assert "and 2 more" in shown
    assert "image 3" not in shown


def test_where_no_published_figure_compares_it_says_so(capsys):
    other = segment_result().published[1]
    print_result(segment_result(published=(other,)))
    assert "no published figure here was measured as this one was" in capsys.readouterr().out


def test_many_reasons_become_one_line_of_what_differs(capsys):
    first, other = segment_result().published
    why = "3 of 10; resolution: 448 (ours: 224); not known: split"
    third = other.model_copy(update={"model": "Third", "value": 70.0, "why_not": why})
    print_result(segment_result(published=(first, other, third)))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    at = lines.index("published mIoU, not comparable: Third 70.0, Other 61.25")
    assert lines[at + 1] == (
        "what differs: 3 of 10, resolution (1 of 2), what is not known (1 of 2); report.html has it of each"
    )


def test_classes_in_set_order_or_worst_first(capsys):
    print_result(segment_result())
    shown = capsys.readouterr().out
    assert shown.index("background  ") < shown.index("cat  ")
    print_result(segment_result(), worst_first=True)
    shown = capsys.readouterr().out
    assert shown.index("cat  ") < shown.index("background  ")


def test_of_many_classes_the_worst_and_the_best_are_shown(capsys):
    classes = tuple(ClassScore(name=f"class-{i:03}", score=i / 100 if i else None, count=i) for i in range(60))
    print_result(segment_result(classes=classes))
    shown = capsys.readouterr().out
    assert "the 15 worst and the 15 best of 60 classes" in shown
    numbers = [int(word[6:]) for word in shown.split() if word.startswith("class-")]
    assert numbers == [*range(1, 16), *range(59, 44, -1)]


def test_the_summary_puts_models_side_by_side(capsys):
    print_summary(document(segment_result(), segment_result(BETTER, model="new")))
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if "tiny" in line).split() == ["set", "task", "metric", "images", "tiny", "new"]
    row = next(line for line in lines if "toy" in line)
    assert row.split() == ["toy", "segment", "mIoU", "3", "of", "10", "40.0", "%", "92.6", "%"]


def test_the_tables_load_no_torch():
    code = (
        "import sys; import clippy_cli.commands.evaluation_tables; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'sklearn', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
