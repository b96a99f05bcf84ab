"""Published figures: the right ones, and never comparable by mistake."""

import pytest
from pydantic import ValidationError

from clippy_cli.evaluation.published import Literature, literature, published_for, published_waterbirds


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


def test_waterbirds_figures_say_how_they_were_made_and_why_they_are_not_ours():
    rows = {row.model: row for row in published_waterbirds()}
    assert (rows["CLIPpy"].water_on_water, rows["CLIPpy"].water_on_land) == (76.9, 74.9)
    clip = rows["CLIP, by CLIPpy's authors"]
    assert (clip.water_on_water, clip.water_on_land) == (80.2, 48.1)
    assert {row.model: row.worst_group for row in rows.values() if row.made == "supervised"} == {
        "ERM": 74.9,
        "JTT": 86.7,
        "GroupDRO": 91.4,
        "DFR": 92.9,
    }
    assert (rows["CLIP B/32"].made, rows["CLIP B/32"].average, rows["CLIP B/32"].worst_group) == (
        "zero-shot",
        80.7,
        27.9,
    )
    assert all("arXiv" in row.source and row.why_not for row in rows.values())
