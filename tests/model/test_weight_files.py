import json
import struct
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import finite
from clippy_cli.model.build import read_weights
from clippy_cli.model.sources.face import ForeignModel
from clippy_cli.model.store import load_model_directory, save_model
from clippy_cli.model.weight_files import all_finite, check_weight_file, write_checksums
from tests.fixtures.export_models import tiny_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    save_model(tiny_model(text="bert", folder=folder / "words"), folder / "model")
    return folder / "model"


@pytest.fixture
def folder(whole, tmp_path):
    for path in whole.rglob("*"):
        if path.is_file():
            copy = tmp_path / "model" / path.relative_to(whole)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return tmp_path / "model"


def flip(path, at=-5):
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer/tokenizer.json"])
def test_one_flipped_bit_is_an_error_that_names_the_file(folder, name):
    load_model_directory(str(folder), device="cpu")
    flip(folder / name, -1 if name.endswith("s") else 40)
    with pytest.raises(ClippyError, match=rf"{name} is damaged: its SHA-256"):
        load_model_directory(str(folder), device="cpu")


def test_a_lost_file_and_one_outside_of_the_folder_are_errors(folder):
    (folder / "tokenizer" / "tokenizer_config.json").unlink()
    with pytest.raises(ClippyError, match=r"tokenizer_config\.json cannot be read"):
        load_model_directory(str(folder), device="cpu")
    (folder / "checksums.json").write_text(json.dumps({"sha256": {"../words/tokenizer.json": "0"}}), encoding="utf-8")
    with pytest.raises(ClippyError, match="outside of the folder"):
        load_model_directory(str(folder), device="cpu")


def test_a_folder_of_earlier_versions_loads_and_the_log_says_so(folder, caplog):
    (folder / "checksums.json").unlink()
    (folder / "notes.txt").write_text("not listed", encoding="utf-8")
    with caplog.at_level("INFO", logger="clippy_cli"):
        load_model_directory(str(folder), device="cpu")
    assert "holds no checksums.json" in caplog.text
    write_checksums(folder)
    load_model_directory(str(folder), device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(folder, value):
    state = load_file(folder / "model.safetensors")
    state["image.projection.weight"][0, 3] = value
    save_file(state, folder / "model.safetensors")
    write_checksums(folder)
    with pytest.raises(ClippyError, match=r"1 of [\d,]+ values of the tensor image\.projection\.weight are NaN or inf"):
        load_model_directory(str(folder), device="cpu")


def test_whole_numbers_are_no_weights(folder):
    state = load_file(folder / "model.safetensors")
    state["patch_mean"] = state["patch_mean"].view(torch.int32)
    save_file(state, folder / "model.safetensors")
    write_checksums(folder)
    with pytest.raises(ClippyError, match="patch_mean holds whole numbers"):
        load_model_directory(str(folder), device="cpu")


def test_large_values_whose_sum_overflows_are_finite():
    assert all_finite(torch.full((4,), 3e38))
    assert all_finite(torch.full((4,), 6e4, dtype=torch.float16))
    assert not all_finite(torch.tensor([3e38, 3e38, float("nan")]))


class Blind(ForeignModel):
    reads_texts = False

    def image_vectors(self, images):
        return self.module(images.mean(dim=(2, 3)))

    def patch_vectors(self, images):
        return self.module(images.permute(0, 2, 3, 1))

    def text_vectors(self, texts):
        raise NotImplementedError


def test_every_foreign_model_is_checked_when_it_loads_and_when_it_answers():
    from clippy_cli.model.base import Preprocess

    pixels = Preprocess((0.0,) * 3, (1.0,) * 3, 1, 4)
    layer = torch.nn.Linear(3, 3)
    model = Blind("blind", layer, pixels, 1.0)
    with torch.no_grad():
        layer.weight[0] = 3e38
    for ask in (model.embed_patches, model.embed_images):
        with pytest.raises(ClippyError, match="blind gives embeddings that are NaN or inf"):
            ask(torch.full((1, 3, 4, 4), 100.0))
    with torch.no_grad():
        layer.weight[0] = float("nan")
    with pytest.raises(ClippyError, match="of blind: 3 of 9 values of the tensor weight"):
        Blind("blind", layer, pixels, 1.0)


def test_finite_gives_its_values_back():
    values = torch.tensor([[1.0, -1.0], [0.0, 1e18]])
    assert finite(values, "m") is values
    with pytest.raises(ClippyError, match="1 of 2 vectors"):  # whose unit norm would be zero
        finite(values * 1e10, "m")


def test_a_flipped_bit_of_a_torch_file_is_found(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"a": torch.ones(1000)}, path)
    assert read_weights(path, "x")["a"].sum() == 1000
    with zipfile.ZipFile(path) as archive:
        record = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
    flip(path, record.header_offset + 2000)
    with pytest.raises(ClippyError, match=r"checksum of its record w/data/0 is wrong"):
        read_weights(path, "x")


def test_a_file_that_would_unpack_to_more_than_it_holds_is_refused(tmp_path):
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data/0", bytes(1 << 24))
    with pytest.raises(ClippyError, match="would unpack to 16,777,216 bytes"):
        read_weights(bomb, "x")
    torch.save({"a": torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "wide.pt")
    with pytest.raises(ClippyError, match="larger than the whole file"):
        read_weights(tmp_path / "wide.pt", "x")
    torch.save({3: torch.zeros(1)}, tmp_path / "numbers.pt")
    with pytest.raises(ClippyError, match="holds no dictionary of tensors"):
        read_weights(tmp_path / "numbers.pt", "x")
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "sparse.pt")
    with pytest.raises(ClippyError, match="no plain one"):
        read_weights(tmp_path / "sparse.pt", "x")


def test_an_archive_that_says_it_has_several_disks_is_damaged(tmp_path):
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 2)  # of ZIP64, as APPNOTE.TXT describes it: the last field counts
    (tmp_path / "a.pt").write_bytes(locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0))
    with pytest.raises(ClippyError, match=r"a\.pt is damaged: .*multiple disks"):
        check_weight_file(tmp_path / "a.pt")
