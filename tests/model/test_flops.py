import pytest
import torch

from clippy_cli.model.build import build_model
from clippy_cli.model.device import named_peak, peak_flops
from clippy_cli.model.flops import ForwardFlops, forward_flops, step_flops
from clippy_cli.model.registry import load_architecture


def vit_flops(tokens, patches, width, depth, patch, joint):
    """Two a multiply-add: patch projection, depth times (qkv, out, MLP of 4x; scores and their weighted sum), joint."""
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    return 2 * (patches * 3 * patch**2 * width + depth * block + tokens * width * joint)


def test_vit_b16_at_224_is_the_formulas_number():
    model = build_model(load_architecture("clip-b16"))
    for kept in (39, None):
        patches = kept or 196
        counted = forward_flops(model, 224, kept, 30)  # its text encoder reads 77 all the same
        assert counted.image == vit_flops(patches + 1, patches, 768, 12, 16, 512)
        assert counted.text == vit_flops(77, 0, 512, 12, 0, 0) + 2 * 512 * 512  # the projection is of one token
    assert counted.image == pytest.approx(35.1e9, rel=0.01)


def test_counting_leaves_the_model_and_the_generators_alone():
    model = build_model(load_architecture("align-nano")).train()
    model.text.eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(4)
    state = torch.get_rng_state()
    small, large = forward_flops(model, 64, None, 24), forward_flops(model, 128, None, 24)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert 3.5 < large.image / small.image <= 4.0 and large.text == small.text > 0


@pytest.mark.parametrize(("image", "text", "expected"), [(True, True, 390), (False, True, 190), (True, False, 330)])
def test_a_step_is_three_passes_of_what_learns_and_one_of_what_does_not(image, text, expected):
    assert step_flops(ForwardFlops(10.0, 3.0), 10, image_learns=image, text_learns=text) == expected


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA H200", "fp32", 66.9e12),
        ("NVIDIA A100-SXM4-40GB", "tf32", 156e12),
        ("NVIDIA L40S", "bf16", 362e12),
        ("NVIDIA L4", "bf16", 121e12),
        ("Tesla V100-SXM2-16GB", "fp16", 125e12),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", None),
        ("NVIDIA T400", "fp16", None),
    ],
)
def test_peaks_by_device_name(name, precision, peak):
    assert named_peak(name, precision) == peak


def test_a_cpu_has_no_known_peak():
    assert peak_flops(torch.device("cpu"), "fp32") is None
