"""Published figures: the right ones, and never comparable by mistake."""

import pytest
from pydantic import ValidationError

from clippy_cli.evaluation.published import Literature, literature, published_for


def figures(*arguments, **settings):
    return {figure.model: figure for figure in published_for(*arguments, **settings)}


def test_the_whole_split_under_the_papers_protocol_is_comparable():
    found = figures("voc", "segment", "miou", protocol="clippy", subset=False)
    assert found["CLIPpy B/16 (CC-12M)"].value == 50.8
    assert found["CLIPpy B/16 (CC-12M)"].comparable
    assert found["CLIPpy B/16 (CC-12M)"].why_not == ""
    assert found["SCLIP"].value == 59.1
    assert not found["SCLIP"].comparable
    assert "sclip" in found["SCLIP"].why_not
    assert "clippy" in found["SCLIP"].why_not
    assert "second-hand" in found["SCLIP"].source
    assert not figures("voc", "segment", "miou", protocol="sclip", subset=False)["CLIPpy B/16 (CC-12M)"].comparable
    assert figures("voc", "segment", "miou", protocol="sclip", subset=False)["SCLIP"].comparable


@pytest.mark.parametrize("protocol", ["clippy", "tcl", "sclip", "other", "mine"])
def test_a_part_of_the_images_is_comparable_to_nothing(protocol):
    for table in literature().tables:
        for name in table.sets:
            found = published_for(
                name, table.task, table.metric, protocol=protocol, subset=True, images=126, complete=1449
            )
            assert found
            assert not any(figure.comparable for figure in found)
            assert all("126 of 1,449 images" in figure.why_not for figure in found)


def test_a_protocol_of_its_own_or_a_changed_one_is_comparable_to_nothing():
    changed = published_for("ade20k", "segment", "miou", protocol="tcl", subset=False, changed=("resolution",))
    assert changed
    assert not any(figure.comparable for figure in changed)
    assert all("resolution" in figure.why_not for figure in changed)
    assert not any(f.comparable for f in published_for("ade20k", "segment", "miou", protocol="other", subset=False))


def test_comparable_figures_come_first():
    found = published_for("ade20k", "segment", "miou", protocol="tcl", subset=False)
    assert [figure.model for figure in found[:2]] == ["CLIP-DINOiser", "TCL"]
    assert [figure.comparable for figure in found] == sorted((f.comparable for f in found), reverse=True)


def test_the_metric_and_the_task_count():
    assert published_for("voc", "group", "jaccard_best", protocol="clippy", subset=False) == ()
    assert published_for("voc", "cluster", "miou", protocol="clippy", subset=False) == ()
    assert (
        figures("imagenet", "classify", "top1", protocol="clippy", subset=False)["CLIPpy B/16 (CC-12M)"].value == 45.3
    )
    # 80 classes without background are not our 81.
    assert not figures("coco-object", "segment", "miou", protocol="clippy", subset=False)[
        "CLIPpy B/16 (CC-12M)"
    ].comparable


def test_a_row_with_a_value_too_few_is_refused():
    table = {"task": "segment", "metric": "miou", "sets": ["voc", "coco"]}
    row = {"model": "m", "source": "s", "protocol": "other", "values": [1.0]}
    source = {"s": {"cite": "c", "read": "primary"}}
    with pytest.raises(ValidationError, match="needs 2 values"):
        Literature.model_validate({"sources": source, "tables": [table | {"rows": [row]}]})
