"""What every task has to say about itself, and tasks that share a forward pass."""

from typing import get_args

import pytest

from clippy_cli.data.benchmarks.base import Kind
from clippy_cli.evaluation.protocol import load_protocol
from clippy_cli.evaluation.result import ImageRecord
from clippy_cli.evaluation.run import measure_set
from clippy_cli.evaluation.settings import Overrides, resolve_settings
from clippy_cli.evaluation.tasks import Task, default_tasks, possible_tasks, task_class
from clippy_cli.evaluation.tasks.base import Options, Setup
from clippy_cli.evaluation.tasks.classify import Classify
from tests.fixtures.colour_model import ColourModel
from tests.fixtures.image_sets import Cloths


@pytest.mark.parametrize("task", Task)
def test_a_task_describes_itself(task):
    found = task_class(task)
    assert found.task is task and found.kinds and set(found.kinds) <= set(get_args(Kind))
    assert {found.headline, *found.followed} <= set(found.definitions)
    assert all(text.endswith(".") for text in found.definitions.values())


@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_tasks_of_a_kind_of_set_share_one_pass_and_the_first_can_be_followed(kind):
    assert len({task_class(task).needs for task in possible_tasks(kind)}) == 1
    assert task_class(default_tasks(kind)[0]).followed


def setup(images, **options):
    model = ColourModel()
    settings = resolve_settings(load_protocol("clippy"), images.info, model, Overrides())
    return Setup(model, images, settings, Options(**options))


def test_tasks_that_score_texts_of_their_own_share_one_pass():
    class Backwards(Classify):
        """Asks for the classes in the opposite order, so that its answers count from the end."""

        def __init__(self, prepared):
            super().__init__(prepared)
            self.texts = self.texts.flip(0)[:2]

        @property
        def results(self):
            return ("backwards",)

        def measure(self, index, sample, output):
            return {"backwards": ImageRecord(index=index, key=sample.key, scores={"best": float(output.argmax())})}

    images = Cloths([((255, 0, 0), 0), ((0, 255, 0), 1), ((0, 0, 255), 2)])
    prepared = setup(images)
    records = measure_set(prepared, [Classify(prepared), Backwards(prepared)]).records
    assert [record.scores["top1"] for record in records["classify"]] == [1.0, 1.0, 1.0]
    assert [record.scores["best"] for record in records["backwards"][1:]] == [1.0, 0.0]
    assert len(prepared.model.batches) == 0  # scores come from pooled embeddings
