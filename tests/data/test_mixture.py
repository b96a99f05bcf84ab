import pytest

from clippy_cli.data.mixture import MixturePart, MixtureSource
from clippy_cli.data.scenes import SceneSource


def test_parts_follow_one_another_each_as_often_as_it_is_repeated():
    first, second = SceneSource(3, 1, 32), SceneSource(2, 2, 32)
    mixture = MixtureSource([MixturePart(first), MixturePart(second, repeat=2)])
    expected = [first.read(index).captions for index in range(3)] + [
        second.read(index).captions for index in (0, 1)
    ] * 2
    assert [mixture.read(index).captions for index in range(len(mixture))] == expected
    assert mixture.describe().endswith("x 2") and not list(mixture.notices)
    for beyond in (7, -1):
        with pytest.raises(IndexError):
            mixture.read(beyond)
