"""The report: one file that asks for nothing, shows every figure, and takes hostile names for text."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from clippy_cli.evaluation.result import ClassScore, DataRecord, ModelRecord
from clippy_cli.reporting.evaluation.figures import (
    confused_classes,
    figure,
    metric_name,
    percent,
    side_by_side,
    worst_order,
    written,
)
from clippy_cli.reporting.evaluation.report import Example, write_report
from clippy_cli.reporting.overlay import LegendItem
from tests.fixtures.evaluation import BETTER, CLASSES, document, segment_result

HOSTILE = CLASSES[2]


class Page(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.styles, self.titles, self.ids, self.text = [], [], "", [], [], ""
        self.feed(text)
        self.close()
        assert "url(" not in text
        assert "@import" not in text

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), f"{tag} has {name}"
            if name in ("src", "href", "srcset", "action", "data", "poster", "background"):
                self.addresses.append(value)
            if name == "title":
                self.titles.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        self.text += data


def example(rank="best", score=0.912, **changes):
    pixels = np.full((600, 960, 3), 90, np.uint8)
    fields = {
        "rank": rank,
        "key": f"<img src=x onerror=alert(1)> {rank}",
        "score": score,
        "photo": pixels,
        "prediction": pixels,
        "annotation": pixels,
        "legend": (LegendItem((1, 2, 3), HOSTILE),),
    }
    return Example(**(fields | changes))


@pytest.fixture
def render(tmp_path):
    def make(*results, examples=()):
        path = write_report(tmp_path / "out" / "report.html", document(*results), examples)
        return Page(path.read_text(encoding="utf-8"))

    return make


def test_the_page_asks_for_nothing_and_runs_nothing(render):
    page = render(segment_result(), examples=[[example()]])
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not {"script", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert page.tags.count("img") == 3


def test_links_lead_to_results(render):
    page = render(segment_result(), segment_result(model="other"))
    links = [address[1:] for address in page.addresses if address.startswith("#")]
    assert links == ["r1", "r2"]
    assert set(links) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_hostile_names_are_text(render):
    data = DataRecord(
        name="<b>toy</b>", title="&amp;", images=3, available=3, complete=10, subset=True, failed=("</ul><script>",)
    )
    page = render(segment_result(data=data), examples=[[example()]])
    for text in (HOSTILE, "<b>toy</b>", "</ul><script>", "<img src=x onerror=alert(1)> best"):
        assert text in page.text


def test_every_figure_is_there(render):
    result = segment_result(encoder_share=0.913)
    page = render(result)
    assert percent(result.metrics["miou"]) == "40.0 %"
    shown = ["40.0 %", "mIoU", "3 of 10 images", "part of the set", "1 min 01 s", "0.50 images/s", "91.3 %", "448"]
    shown += [percent(entry.score) for entry in result.classes] + [f"{entry.count:,}" for entry in result.classes]
    shown += ["mean IoU", "share of right pixels", "Theirs", "50.8", "Other", "61.25", "not comparable", "3 of 10"]
    shown += ["clippy evaluate toy", "2026-01-02T03:04:05Z", "torch", "2.0", "tiny-0123", "cpu", "a, b"]
    missing = [text for text in shown if text not in page.text]
    assert not missing


def test_undefined_figures_say_why(render):
    page = render(segment_result(BETTER))
    assert "–" in page.text
    assert "neither annotated nor predicted in these images" in page.titles
    assert "nan" not in page.text.lower()
    assert "None" not in page.text


def test_examples_come_best_first_and_reduced(render, tmp_path):
    examples = [example("worst", 0.1), example("median", 0.5), example("best", 0.9)]
    page = render(segment_result(), segment_result(model="another"), examples=[examples, []])
    assert page.text.index("Best ·") < page.text.index("Median ·") < page.text.index("Worst ·")
    pictures = [address for address in page.addresses if address.startswith("data:image/jpeg;base64,")]
    assert len(pictures) == 9
    first = Image.open(io.BytesIO(base64.b64decode(pictures[0].partition(",")[2])))
    assert first.size == (480, 300)


def test_models_of_one_name_have_examples_of_their_own(render):
    results = [
        segment_result().model_copy(update={"model": ModelRecord(name="tiny", source=source, fingerprint=source)})
        for source in ("here", "there")
    ]
    page = render(*results, examples=[[], [example()]])
    assert page.tags.count("img") == 3
    assert side_by_side(document(*results)).models == ("tiny (here)", "tiny (there)")


def test_a_document_of_nothing_and_a_result_of_nothing_still_render(render):
    render()
    empty = DataRecord(name="toy", title="", images=0, available=0, complete=None, subset=False)
    page = render(segment_result({}, data=empty, task="retrieve", classes=(), published=()))
    assert "no image was counted" in page.titles


def test_confusion_shares_are_of_all_annotated_pixels():
    found = confused_classes(segment_result())
    assert [confusion.entry.name for confusion in found] == ["cat", "background"]  # the third is not annotated
    cat = found[0]
    assert cat.right == 0.5
    assert cat.taken_for == (("background", 0.3), (HOSTILE, 0.2))
    assert cat.rest == pytest.approx(0)
    # Pixels for which no class was predicted are in the count alone.
    classes = tuple(ClassScore(name=name, score=0.1, count=200) for name in CLASSES)
    assert confused_classes(segment_result(classes=classes))[0].rest == pytest.approx(1 - 200 / 200)
    assert confused_classes(segment_result(classes=classes))[1].rest == pytest.approx(0.5)


def test_figures_as_text():
    assert [figure("miou", value) for value in (0.4567, None, float("nan"), 0.0)] == ["45.7 %", "–", "–", "0.0 %"]
    assert metric_name("image_to_text_r10") == "image to text R@10"
    assert metric_name("jaccard") == "Jaccard (Hungarian, per image)"
    assert figure("variation_of_information", 2.418) == "2.42 bits"
    assert worst_order(segment_result(BETTER).classes) == [1, 0, 2]
    assert [written(value) for value in (None, True, 40.0, ["a", 1], {"a": None}, "")] == [
        "none",
        "yes",
        "40",
        "a, 1",
        "a none",
        "none",
    ]


def test_a_summary_lines_up_sets_and_models():
    group = {"task": "group", "headline": "variation_of_information", "classes": ()}
    summary = side_by_side(
        document(
            segment_result(),
            segment_result(BETTER, model="new"),
            segment_result(model="new", metrics={"variation_of_information": 2.0}, **group),
            segment_result(metrics={"variation_of_information": 3.0}, **group),
            segment_result(name="more"),
            segment_result(protocol={"resolution": 224}),  # the same set, task and model once more
        )
    )
    assert summary.models == ("tiny", "new")
    assert [row.data for row in summary.rows] == ["toy", "toy", "more", "toy"]
    assert summary.rows[0].best == segment_result(BETTER).metrics["miou"]
    assert summary.rows[1].best == 2.0  # less information lost is better
    assert summary.rows[2].cells[1] is None
    assert summary.rows[2].best is None
    assert summary.rows[3].distinct("resolution") == "224"
