"""The convolution over tokens: torch's own as the oracle, texts that stay apart, and what it is refused in."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sublayer import config
from sublayer.config.presets import PRESETS
from sublayer.errors import CheckpointError, ConfigError
from sublayer.hub.exporting import choose_family
from sublayer.nn.convolution import Convolution, text_numbers

DIM = 6


def convolution(width: int, activation: config.Activation = "relu") -> Convolution:
    torch.manual_seed(width)
    return Convolution(config.Convolution(width=width, activation=activation), DIM).double().eval()


def by_torch(part: Convolution, x: torch.Tensor) -> torch.Tensor:
    """The same by `conv1d`, whose kernel is [out, in, width]."""
    width = 2 * part.reach + 1
    kernel = part.map.weight.view(DIM, width, DIM).transpose(1, 2)
    found = F.conv1d(x.transpose(1, 2), kernel, part.map.bias, padding=part.reach)
    return x + part.activation(found.transpose(1, 2))


@pytest.mark.parametrize("width", [1, 3, 5, 9])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_it_is_torchs_convolution(width: int, activation: config.Activation) -> None:
    part, x = convolution(width, activation), torch.randn(3, 7, DIM, dtype=torch.float64)
    torch.testing.assert_close(part(x), by_torch(part, x))


def test_a_text_in_a_padded_row_is_what_it_is_alone() -> None:
    part, x, lengths = convolution(5), torch.randn(2, 7, DIM, dtype=torch.float64), torch.tensor([4, 7])
    tokens = torch.zeros(2, 7, dtype=torch.int64)
    found = part(x, text_numbers(tokens, lengths, None))
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(found[row, :length], by_torch(part, x[row : row + 1, :length])[0])


def test_texts_packed_in_a_row_are_what_they_are_alone() -> None:
    part, x = convolution(5), torch.randn(1, 9, DIM, dtype=torch.float64)
    segments = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2]])
    # The third text ends after seven tokens; what follows is padding that has its number.
    found = part(x, text_numbers(segments, torch.tensor([7]), segments))
    for first, last in ((0, 3), (3, 5), (5, 7)):
        torch.testing.assert_close(found[:, first:last], by_torch(part, x[:, first:last]))


def test_an_even_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="width = 4 is not odd"):
        config.Convolution.parse({"width": 4}, "r.toml")


@pytest.mark.parametrize("name", ["tiny", "gpt2"])
def test_models_that_must_not_look_ahead_refuse_it(name: str) -> None:
    plain = PRESETS[name].plain()
    plain["embedding"]["convolution"] = {"width": 3}
    with pytest.raises(ConfigError, match=r"embedding\.convolution is set, but model\.kind = "):
        type(PRESETS[name]).parse(plain, "r.toml")


def test_another_library_that_has_none_refuses_to_write_it() -> None:
    plain = PRESETS["bert-base"].plain()
    choose_family(config.EncoderOnly.parse(plain, "r.toml"))
    plain["embedding"]["convolution"] = {"width": 3}
    with pytest.raises(CheckpointError, match=r"embedding\.convolution"):
        choose_family(config.EncoderOnly.parse(plain, "r.toml"))
