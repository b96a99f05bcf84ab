"""Photos that are finished beside the encoder: order, bounds, errors, and the same files as one by one."""

import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from clippy_cli.clip import Clip
from clippy_cli.errors import ClippyError
from clippy_cli.reporting import finishing
from clippy_cli.reporting.answers import Failure
from clippy_cli.reporting.finishing import finish_beside, finishing_threads
from clippy_cli.reporting.model_choice import ModelChoice
from tests.conftest import REPOSITORY

SAMPLE = REPOSITORY / "clippy_cli" / "assets" / "samples" / "raccoon.jpg"


def run(items, finish, *, workers=2, waiting=3, pixels=lambda item: 1):
    return list(finish_beside(items, finish, pixels, workers=workers, waiting=waiting))


def test_the_order_is_kept_whoever_is_done_first():
    second_is_done = threading.Event()

    def finish(item):
        if item == 0:
            assert second_is_done.wait(timeout=60)
        elif item == 1:
            second_is_done.set()
        return item

    assert run(range(6), finish) == list(range(6))


@pytest.mark.parametrize(("size", "most"), [(1, 3), (40_000_000, 1), (30_000_000, 2), (10**9, 1)])
def test_few_photos_and_few_pixels_wait(size, most):
    taken = 0

    def items():
        nonlocal taken
        for number in range(9):
            taken += 1
            yield number

    # The item at hand is not submitted before there is room for it.
    ahead = [
        taken - place
        for place, _ in enumerate(finish_beside(items(), lambda item: item, lambda item: size, workers=2, waiting=3))
    ]
    assert max(ahead) == most + 1


def test_the_first_error_is_raised_in_its_place_and_nothing_more_is_begun():
    begun: list[int] = []
    got: list[int] = []

    def finish(item):
        begun.append(item)
        if item == 2:
            raise ClippyError("The disk is full.")
        return item

    with pytest.raises(ClippyError, match="disk is full"):
        got.extend(finish_beside(range(100), finish, lambda item: 1, workers=1, waiting=2))
    assert got == [0, 1] and len(begun) <= 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("finish")]


def test_threads_that_finish_compute_alone_and_the_others_as_before(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert finishing_threads(torch.device("cpu")) == 6
    monkeypatch.setattr(finishing, "_cores", lambda: 32)
    assert finishing_threads(torch.device("cuda")) == 8
    monkeypatch.undo()
    before = torch.get_num_threads()
    assert set(run(range(4), lambda item: torch.get_num_threads())) == {1}
    assert torch.get_num_threads() == before


@pytest.fixture
def photos(tmp_path):
    """Five crops of the sample, of two sizes, and a file that is no photo between them."""
    paths = []
    with Image.open(SAMPLE) as sample:
        for number in range(5):
            width = 200 if number % 2 else 150
            path = tmp_path / f"photo{number}.png"
            sample.crop((100 * number, 50, 100 * number + 2 * width, 350)).resize((width, 150)).save(path)
            paths.append(path)
    (tmp_path / "none.png").write_bytes(b"no photo")
    return [*paths[:3], tmp_path / "none.png", *paths[3:]]


@pytest.mark.parametrize("refine", ["guided", "none"])
def test_one_photo_or_many_give_the_same_files(nano, photos, tmp_path, refine):
    clip, labels = Clip(ModelChoice(nano, "nano")), "raccoon,grass,stone"
    many = list(clip.segment_many(photos, labels, refine=refine, batch_size=2))
    assert [type(result) is Failure for result in many] == [False] * 3 + [True] + [False] * 2
    for photo, result in zip(photos, many, strict=True):
        if isinstance(result, Failure):
            assert result.source == str(photo)
            continue
        alone = clip.segment(photo, labels, refine=refine)
        written = result.save(tmp_path / "many"), alone.save(tmp_path / "one")
        for kind in ("overlay", "mask"):
            first, second = (files[kind] for files in written)
            assert Path(first).read_bytes() == Path(second).read_bytes()
        assert result.record() == alone.record()


def test_groups_of_many_are_those_of_one(nano, photos):
    clip = Clip(ModelChoice(nano, "nano"))
    for photo, result in zip(photos, clip.group_many(photos, 3, batch_size=2), strict=True):
        if not isinstance(result, Failure):
            assert result.record() == clip.group(photo, 3).record()
            assert result.pca().tobytes() == clip.group(photo, 3).pca().tobytes()
