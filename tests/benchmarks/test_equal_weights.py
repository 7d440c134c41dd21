"""What the benchmarks call "equal weights" must give equal outputs, or their ratios compare different work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sublayer.models import EncoderDecoder

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from marian import from_marian, to_marian  # noqa: E402
from shapes import common_shape  # noqa: E402
from torch_transformer import with_weights_of  # noqa: E402


@pytest.fixture
def model() -> EncoderDecoder:
    """Large random weights and biases: small ones would hide an error."""
    torch.manual_seed(0)
    model = EncoderDecoder(common_shape("tiny", vocab_size=97)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    lengths = torch.tensor([7, 3, 5])
    source = torch.randint(3, 97, (3, 7)).masked_fill(torch.arange(7) >= lengths.unsqueeze(1), 0)
    return source, lengths, torch.randint(3, 97, (3, 6))


def close(one: Tensor, other: Tensor) -> None:
    assert (one - other).norm() <= 1e-5 * one.norm()


@torch.no_grad()
def test_marian(model: EncoderDecoder, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    source, lengths, target = batch
    marian = to_marian(model)
    theirs = marian(input_ids=source, attention_mask=source != 0, decoder_input_ids=target).logits
    ours = model(source, lengths, target)
    close(ours, theirs)
    other = EncoderDecoder(model.config).eval()
    from_marian(marian, other)
    assert torch.equal(other(source, lengths, target), ours)


@torch.no_grad()
def test_torch_transformer(model: EncoderDecoder, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    source, lengths, target = batch
    close(model(source, lengths, target), with_weights_of(model)(source, target))
