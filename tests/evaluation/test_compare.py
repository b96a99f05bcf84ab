"""Two stored evaluations: what is paired, what is warned of, and what cannot be read."""

import json

import pytest

from clippy_cli.commands.evaluation_tables import print_comparison
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.compare import compare
from clippy_cli.evaluation.result import ImageRecord
from clippy_cli.evaluation.stored import load_document, load_images
from tests.fixtures.evaluation import BETTER, COUNTS, records, segment_result, write


def test_segmentation_is_compared_on_the_images_of_both(tmp_path):
    a = write(tmp_path / "a", [(segment_result(), records())])
    fewer = {key: counts for key, counts in BETTER.items() if key != "three"}
    b = write(tmp_path / "b", [(segment_result(fewer, model="new"), records(fewer)[::-1])])
    pair = compare(a, b).pairs[0]
    assert (pair.metric, pair.images, pair.model_a, pair.model_b) == ("miou", 2, "tiny", "new")
    assert pair.a == pytest.approx((110 / 130 + 50 / 90 + 0) / 3)  # "three" is left out
    assert pair.b == 1.0
    assert pair.interval.low > 0
    assert [entry.name for entry in pair.classes] == ["cat", "background", "<script>alert('x')</script>"]
    assert pair.classes[0].difference == pytest.approx(1 - 50 / 90)
    assert pair.classes[2].b is None  # not even predicted any more
    assert any("only the 2 of both" in warning for warning in pair.warnings)


def test_equal_settings_give_no_warning_and_others_are_listed(tmp_path):
    a = write(tmp_path / "a", [(segment_result(), records())])
    assert compare(a, tmp_path / "a").pairs[0].warnings == ()
    moved = {**BETTER, "one": ((0, 0, 79), (1, 1, 21))}
    other = segment_result(
        moved,
        protocol={"name": "sclip", "resolution": 448, "window": 224, "templates": ["a", "b"]},
        definitions={"miou": "another mean"},
    )
    warnings = compare(a, write(tmp_path / "b", [(other, records(moved))])).pairs[0].warnings
    text = "\n".join(warnings)
    assert "protocol: clippy and sclip" in text
    assert "protocol, window: none and 224" in text
    assert "miou is defined in two ways" in text
    assert "annotated pixels differ in 1 images" in text
    assert len(warnings) == 4


def test_figures_that_do_not_follow_from_the_images_are_named(tmp_path):
    a = write(tmp_path / "a", [(segment_result(metrics={"miou": 0.9}), records())])
    warnings = compare(a, a).pairs[0].warnings
    assert len(warnings) == 2  # the same file twice
    assert "result.json says 0.9000" in warnings[0]


def test_several_models_are_paired_in_order_and_the_rest_is_named(tmp_path):
    mine = [(segment_result(model=f"m{i}"), records()) for i in range(2)] + [(segment_result(name="x"), records())]
    a, b = write(tmp_path / "a", mine), write(tmp_path / "b", [(segment_result(BETTER, model="n"), records(BETTER))])
    comparison = compare(a, b)
    assert [(pair.model_a, pair.model_b) for pair in comparison.pairs] == [("m0", "n")]
    text = "\n".join(comparison.notes)
    assert "paired in order, m0 with n" in text
    assert "toy (segment, m1): only in" in text
    assert "x (segment, tiny): only in" in text


def test_groups_are_compared_by_the_score_of_each_image(tmp_path):
    scores = [{"one": {"jaccard": 0.2}, "two": {"jaccard": None}}, {"one": {"jaccard": 0.5}, "two": {"jaccard": 0.9}}]
    paths = [
        write(
            tmp_path / str(i),
            [(segment_result(task="group", headline="jaccard", metrics={}, classes=()), records({}, own))],
        )
        for i, own in enumerate(scores)
    ]
    pair = compare(*paths).pairs[0]
    assert (pair.metric, pair.a, pair.b) == ("jaccard", 0.2, 0.5)
    assert pair.interval.low == pair.interval.high == pytest.approx(0.3)
    assert pair.classes == ()


def test_clusters_take_the_classes_of_the_whole_set(tmp_path):
    # Cluster 3 is class 0 and cluster 1 is class 1; cluster 0 has no class left, its pixels only miss.
    clustered = {
        "one": ((0, 3, 60), (0, 0, 20), (1, 1, 20)),
        "two": ((0, 3, 50), (1, 1, 50)),
        "three": ((0, 3, 70), (2, 4, 9)),
    }
    result = segment_result(task="cluster", headline="hungarian_miou", metrics={"hungarian_miou": None})
    path = write(tmp_path / "a", [(result, records(clustered))])
    pair = compare(path, path).pairs[0]
    assert pair.metric == "hungarian_miou"
    assert pair.a == pytest.approx((180 / 200 + 1 + 1) / 3)
    assert (pair.interval.low, pair.interval.high) == (0.0, 0.0)


def test_classification_is_compared_by_hits(tmp_path):
    def lines(*predicted):
        return [
            ImageRecord(index=i, key=str(i), counts=((i % 2, p, 1),), scores={"top1": float(p == i % 2)})
            for i, p in enumerate(predicted)
        ]

    result = segment_result(task="classify", headline="top1", metrics={"top1": None})
    a, b = (write(tmp_path / name, [(result, lines(*p))]) for name, p in (("a", (0, 0, 0, 0)), ("b", (0, 1, 0, 0))))
    pair = compare(a, b).pairs[0]
    assert (pair.metric, pair.a, pair.b) == ("top1", 0.5, 0.75)
    assert {entry.name: entry.difference for entry in pair.classes}["cat"] == 0.5


def test_results_of_other_classes_or_sets_are_refused(tmp_path):
    a = write(tmp_path / "a", [(segment_result(), records())])
    classes = segment_result().classes[:2]
    b = write(tmp_path / "b", [(segment_result(classes=classes), records())])
    with pytest.raises(ClippyError, match="the classes differ, 3 and 2"):
        compare(a, b)
    c = write(tmp_path / "c", [(segment_result(name="else"), records())])
    with pytest.raises(ClippyError, match=r"no set and task in common: toy \(segment\) against else \(segment\)"):
        compare(a, c)
    d = write(tmp_path / "d", [(segment_result(), records({"one": ((7, 0, 1),)}))])
    with pytest.raises(ClippyError, match="annotated class 7"):
        compare(d, d)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "names no schema"),
        ('{"schema": "clippy-result/0"}', "its schema is 'clippy-result/0'"),
        ('{"schema": "clippy-result/1"}', "created"),
        ("[" * 100_000, "not JSON"),
        (None, "no such file"),
    ],
)
def test_files_that_are_no_results_are_refused_with_a_remedy(tmp_path, text, message):
    if text is not None:
        (tmp_path / "result.json").write_text(text)
    with pytest.raises(ClippyError, match=message) as caught:
        load_document(tmp_path)
    assert caught.value.hint


def test_a_metric_of_an_earlier_version_is_read_by_the_name_it_has_now(tmp_path, caplog):
    old = segment_result(
        {}, task="group", headline="jaccard", classes=(), metrics={"jaccard": 0.4, "jaccard_best": 0.5}
    )
    scores = {key: {"jaccard": 0.4, "jaccard_best": 0.5} for key in COUNTS}
    path = write(tmp_path, [(old, records({}, scores))])
    file, document = load_document(path)
    assert document.results[0].metrics == {"jaccard": 0.4, "average_best_overlap": 0.5}
    assert all("average_best_overlap" in image.scores for image in load_images(file, document.results[0]).values())
    assert "jaccard_best is now called average_best_overlap" in caplog.text


def test_files_of_images_are_checked(tmp_path):
    path = write(tmp_path / "a", [(segment_result(), records())])
    lines = tmp_path / "a" / "toy-tiny.jsonl"
    lines.write_text('{"index": 0, "key": "one"}\n{"index": 1, "key": "two", "error": "truncated"}\n\n')
    one = segment_result().model_copy(update={"data": segment_result().data.model_copy(update={"images": 1})})
    assert list(load_images(path, one)) == ["one"]  # failed images do not count
    with pytest.raises(ClippyError, match=r"holds 1 images that count, and result\.json says 3"):
        load_images(path, segment_result())
    lines.write_text('{"index": 0, "key": "one"}\n{"key": 5}\n')
    with pytest.raises(ClippyError, match="line 2"):
        load_images(path, segment_result())
    lines.unlink()
    with pytest.raises(ClippyError, match="is missing"):
        load_images(path, segment_result())
    (tmp_path / "outside.jsonl").write_text(json.dumps({"index": 0, "key": "k"}))
    with pytest.raises(ClippyError, match="lies outside"):
        load_images(path, segment_result(images_file="../outside.jsonl"))
    with pytest.raises(ClippyError, match="no file of per-image figures"):
        load_images(path, segment_result(images_file=None))


def test_the_printed_comparison_says_what_the_interval_means(tmp_path, capsys):
    a = write(tmp_path / "a", [(segment_result(), records())])
    b = write(tmp_path / "b", [(segment_result(BETTER, protocol={}), records(BETTER))])
    print_comparison(compare(a, b))
    shown = capsys.readouterr().out
    assert "mIoU A 40.0 %   B" in shown
    assert "excludes 0" in shown
    assert "not the same: protocol, resolution: 448 and none" in shown
    print_comparison(compare(a, a))
    assert "B - A +0.00 points   95 % interval +0.00 to +0.00" in capsys.readouterr().out
