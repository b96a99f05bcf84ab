"""What the documentation shows of a set of one's own is a file that opens."""

import re

import numpy as np
import yaml
from PIL import Image

from clippy_cli.data.benchmarks import open_benchmark
from clippy_cli.data.benchmarks.catalogue import benchmark_names
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "evaluate.md").read_text(encoding="utf-8")


def test_the_example_of_an_own_set_opens(tmp_path):
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "street.yaml").write_text(example)
    for folder, suffix, pixels in (
        ("photos", "jpg", np.zeros((4, 6, 3), np.uint8)),
        ("labels", "png", np.array([[0, 1, 2, 3, 255, 0]] * 4, np.uint8)),
    ):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / f"a.{suffix}")
    images = open_benchmark(str(tmp_path / "street.yaml"), None)
    assert [entry.name for entry in images.classes] == list(yaml.safe_load(example)["classes"])
    assert images.classes[1].prompts == ("person", "man", "woman") and images.background == 3
    assert images.read(0).mask[0].tolist() == [0, 1, 2, 3, 255, 0]


def test_every_set_is_on_the_page():
    missing = [name for name in benchmark_names() if f"`{name}`" not in PAGE]
    assert not missing
