"""What a command with the shipped model imports, and what it says first: a person waits for both."""

import json
import subprocess
import sys

from PIL import Image

from clippy_cli import sample_photo

# Each costs from a tenth of a second to more than torch itself, and the shipped model needs none.
HEAVY = ("timm", "torchvision", "torch._dynamo", "torch._inductor", "open_clip", "transformers", "huggingface_hub",
         "sklearn", "scipy", "matplotlib", "ftfy", "sympy", "jinja2", "pandas", "gradio")  # fmt: skip
PROBE = """
import json, sys
from clippy_cli.app import app
photo, out = sys.argv[1:]
for command in (["segment", "--labels", "raccoon,grass", "--out", out], ["group", "--out", out],
                ["classify", "--labels", "raccoon,car"]):
    app([command[0], photo, *command[1:]], standalone_mode=False)
print(json.dumps([name for name in {heavy} if name in sys.modules]))
"""


def test_the_shipped_model_answers_without_heavy_libraries(tmp_path):
    photo = tmp_path / "photo.jpg"
    Image.open(sample_photo()).resize((64, 48)).save(photo)
    probe = PROBE.replace("{heavy}", repr(HEAVY))
    done = subprocess.run(
        [sys.executable, "-c", probe, photo, tmp_path / "out"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_something_is_said_before_the_libraries_load(tmp_path):
    """The first line comes before torch can have been imported, whatever follows."""
    probe = "import sys; sys.modules['torch'] = None; from clippy_cli.__main__ import main; main()"
    for arguments, says in ((["segment", "photo.jpg", "--labels", "dog"], True), (["segment", "--help"], False),
                            (["sets"], False)):  # fmt: skip
        done = subprocess.run([sys.executable, "-c", probe, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert done.stderr.startswith("loading libraries ...\n") is says, done.stderr
