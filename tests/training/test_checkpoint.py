"""Checkpoints and logs that were damaged on disk, or hold what no run can go on from."""

import json
import zipfile

import pytest
import torch

from clippy_cli.errors import ClippyError
from clippy_cli.recipe.smoke import is_smoke, smoke_recipe
from clippy_cli.training.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    load_optimizer,
    load_weights,
    save_checkpoint,
)
from clippy_cli.training.events import SetsEvaluated, Validated
from clippy_cli.training.run import train
from clippy_cli.training.run_folder import RunFolder


def checkpoint(**changes):
    fields = {
        "step": 2,
        "model": {"w": torch.ones(300)},
        "optimizer": {"state": {0: {"m": torch.ones(3)}}, "param_groups": []},
        "scaler": {},
        "logit_bias": None,
        "recipe": {},
        "processes": 1,
        "positions": [(0, 0, 0)],
        "samples": 8,
        "broken": {3: "cut"},
        "best": {},
        "terms": {},
    }
    return Checkpoint(**(fields | changes))


def test_a_flipped_bit_of_a_weight_is_found(tmp_path):
    path = save_checkpoint(tmp_path, checkpoint(), keep=1)
    assert load_checkpoint(path).broken == {3: "cut"} and load_optimizer(path)["state"][0]["m"].sum() == 3
    with zipfile.ZipFile(path) as archive:
        record = next(info for info in archive.infolist() if info.file_size == 1200)
    data = bytearray(path.read_bytes())
    data[record.header_offset + 600] ^= 64
    path.write_bytes(data)
    with pytest.raises(ClippyError, match=r"cannot be read: .*checksum of its record .* is wrong") as caught:
        load_checkpoint(path)
    assert "takes the checkpoint before it" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"step": -1}, "step"),
        ({"step": "two"}, "step"),
        ({"model": {"w": 3}}, "model.w"),
        ({"model": None}, "model"),
        ({"positions": [(0, 0)]}, "positions.0"),
        ({"broken": ["x"]}, "broken"),
        ({"terms": {"a": {"b": "c"}}}, "terms.a.b"),
        ({"model": {"w": torch.ones(1).expand(1 << 30)}}, "larger than the whole file"),
    ],
)
def test_parts_of_another_type_are_named(tmp_path, changes, says):
    path = tmp_path / "step-00000002.pt"
    torch.save(vars(checkpoint(**changes)), path)
    with pytest.raises(ClippyError, match=says):
        load_checkpoint(path)


def test_parts_that_lack_or_are_too_many_are_named(tmp_path):
    fields = dict(vars(checkpoint()))
    del fields["samples"]
    torch.save(fields, tmp_path / "a.pt")
    with pytest.raises(ClippyError, match="samples"):
        load_checkpoint(tmp_path / "a.pt")
    torch.save([1], tmp_path / "b.pt")
    with pytest.raises(ClippyError, match="the whole file"):
        load_checkpoint(tmp_path / "b.pt")
    torch.save(vars(checkpoint(optimizer={"state": {}})), tmp_path / "c.pt")
    with pytest.raises(ClippyError, match=r"does not fit the run \(KeyError"):
        load_optimizer(tmp_path / "c.pt")
    torch.save(vars(checkpoint(model={"w": torch.tensor([float("nan")])})), tmp_path / "d.pt")
    with pytest.raises(ClippyError, match="tensor w are NaN or inf"):
        load_weights(tmp_path / "d.pt")


def test_a_run_does_not_go_on_from_another_models_weights(tiny, tmp_path):
    recipe = tiny("train.epochs=null", "train.steps=3", "train.batch_size=4", "data.source.count=8")
    folder = tmp_path / "run" / "checkpoints"
    save_checkpoint(folder, checkpoint(recipe=recipe.model_dump(mode="json")), keep=1)
    with pytest.raises(ClippyError, match="does not fit the run"):
        train(recipe, device="cpu", resume=True)


def test_a_log_is_json_whatever_was_measured_and_keeps_no_damaged_line(tmp_path, tiny, caplog):
    folder = RunFolder(tmp_path)
    nan = float("nan")
    folder.append(Validated(1, nan))
    folder.append(SetsEvaluated(1, {"scenes.miou": nan, "scenes.accuracy": 0.25}))

    def refuse(constant):
        raise AssertionError(constant)

    lines = [json.loads(line, parse_constant=refuse) for line in folder.log.read_text(encoding="utf-8").splitlines()]
    assert (
        lines[0]["loss"] is None
        and 0.25 in lines[1][next(k for k in lines[1] if isinstance(lines[1][k], dict))].values()
    )
    with folder.log.open("ab") as file:
        file.write(b'5\n\xff\n{"step": 1}\n' + b"[" * 100_000 + b'\n{"event": ')
    assert len(folder.records()) == 2
    assert "4 lines are damaged and left out, the first is line 3" in caplog.text
    folder.prepare(tiny(), 1, finished=False)
    assert len(folder.log.read_text(encoding="utf-8").splitlines()) == 2


def test_copies_that_somebody_made_are_neither_deleted_nor_resumed_from(tmp_path):
    copies = [tmp_path / name for name in ("step-00000001-good.pt", "step-best.pt", "step-notes.tmp")]
    for copy in copies:
        copy.write_text("mine")
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, checkpoint(step=step), keep=1)
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00000003.pt"
    assert sorted(tmp_path.iterdir()) == sorted([*copies, tmp_path / "step-00000003.pt"])


def test_a_smoke_run_removes_an_earlier_one_and_nothing_else(tiny, tmp_path):
    folder = RunFolder(tmp_path / "run-smoke")
    smoke = smoke_recipe(tiny())
    folder.prepare(smoke, 0, finished=False)
    folder.refuse_if_used(throwaway=is_smoke(smoke))
    assert not list(folder.root.iterdir())
    folder.prepare(smoke, 0, finished=False)
    (folder.root / "notes.txt").touch()
    with pytest.raises(ClippyError, match=r"holds notes\.txt\."):
        folder.refuse_if_used(throwaway=True)
    own = tiny("name=camp-smoke", f"output={folder.root}")  # a run of its own right, whatever it is called
    assert not is_smoke(own)
    folder.prepare(own, 0, finished=False)
    with pytest.raises(ClippyError, match="not empty"):
        folder.refuse_if_used(throwaway=True)
    assert folder.recipe.is_file() and folder.log.is_file()
