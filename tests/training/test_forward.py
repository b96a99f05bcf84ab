"""How texts are padded where towers are compiled."""

import pytest

from clippy_cli.training.forward import padded_length


@pytest.mark.parametrize(
    ("length", "context", "padded"), [(5, 77, 77), (77, 77, 77), (5, 256, 128), (128, 256, 128), (129, 256, 256)]
)
def test_texts_have_few_lengths_and_seldom_that_of_a_long_context(length, context, padded):
    assert padded_length(length, context) == padded
