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

DIM, NARROW = 6, 4


def convolution(*widths: int, activation: config.Activation = "relu", residual: bool = True) -> Convolution:
    torch.manual_seed(sum(widths))
    c = config.Convolution(width=widths[0], others=widths[1:], activation=activation, residual=residual)
    part = Convolution(c, DIM if residual else NARROW, DIM).double().eval()
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter)
    return part


def by_torch(part: Convolution, x: torch.Tensor) -> torch.Tensor:
    """The same by `conv1d`, whose kernel is [out, in, width], one width after the other."""
    found: list[torch.Tensor] = []
    for width, each in zip(part.widths, (part.map, *part.others), strict=True):
        assert isinstance(each, torch.nn.Linear)
        kernel = each.weight.view(each.out_features, width, -1).transpose(1, 2)
        # Of an even width one more is read after a token than before it.
        padded = F.pad(x.transpose(1, 2), ((width - 1) // 2, width // 2))
        found.append(part.activation(F.conv1d(padded, kernel, each.bias)))
    made = torch.cat(found, dim=1).transpose(1, 2)
    return x + made if part.residual else made


@pytest.mark.parametrize("widths", [(1,), (3,), (4,), (9,), (3, 4, 5), (2, 7, 1, 3)], ids=str)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("residual", [True, False])
def test_it_is_torchs_convolution(widths: tuple[int, ...], activation: config.Activation, residual: bool) -> None:
    part = convolution(*widths, activation=activation, residual=residual)
    x = torch.randn(3, 7, DIM if residual else NARROW, dtype=torch.float64)
    torch.testing.assert_close(part(x), by_torch(part, x))


def test_the_filters_are_shared_out_evenly() -> None:
    assert config.Convolution(width=3, others=(4, 5)).filters(300) == {3: 100, 4: 100, 5: 100}
    assert config.Convolution(width=2, others=(7, 1, 3)).filters(6) == {2: 3, 7: 1, 1: 1, 3: 1}


def test_a_text_in_a_padded_row_is_what_it_is_alone() -> None:
    part, x, lengths = convolution(5, 2), torch.randn(2, 7, DIM, dtype=torch.float64), torch.tensor([4, 7])
    tokens = torch.zeros(2, 7, dtype=torch.int64)
    found = part(x, text_numbers(tokens, lengths, None))
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(found[row, :length], by_torch(part, x[row : row + 1, :length])[0])


def test_texts_packed_in_a_row_are_what_they_are_alone() -> None:
    part, x = convolution(5, 4), torch.randn(1, 9, DIM, dtype=torch.float64)
    segments = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2]])
    # The third text ends after seven tokens; what follows is padding that has its number.
    found = part(x, text_numbers(segments, torch.tensor([7]), segments))
    for first, last in ((0, 3), (3, 5), (5, 7)):
        torch.testing.assert_close(found[:, first:last], by_torch(part, x[:, first:last]))


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([4, 3], r"the widths \(3, 4, 3\): name each once"),
        ([1, 2, 4, 5, 6, 7, 8], "8 widths, but dim = 6 filters are all there are"),
    ],
    ids=["twice", "too many"],
)
def test_widths_that_do_not_fit_are_refused(others: list[int], said: str) -> None:
    plain = PRESETS["bert-base"].plain() | {"dim": 6}
    plain["encoder"]["block"]["attention"]["heads"] = 1
    plain["embedding"]["convolution"] = {"width": 3, "others": others}
    with pytest.raises(ConfigError, match=said):
        config.EncoderOnly.parse(plain, "r.toml")


@pytest.mark.parametrize("name", ["tiny", "gpt2"])
def test_models_that_must_not_look_ahead_refuse_it(name: str) -> None:
    plain = PRESETS[name].plain()
    plain["embedding"]["convolution"] = {"width": 3}
    with pytest.raises(ConfigError, match=r"embedding\.convolution is set, but model\.kind = "):
        type(PRESETS[name]).parse(plain, "r.toml")


def test_another_library_that_has_none_refuses_to_write_it() -> None:
    plain = PRESETS["bert-base"].plain()
    plain["embedding"]["initial_std"] = 0.1
    choose_family(config.EncoderOnly.parse(plain, "r.toml"))
    plain["embedding"]["convolution"] = {"width": 3}
    with pytest.raises(CheckpointError, match=r"embedding\.convolution"):
        choose_family(config.EncoderOnly.parse(plain, "r.toml"))
    plain["encoder"]["layers"] = 0
    with pytest.raises(CheckpointError, match=r"encoder\.layers = 0"):
        choose_family(config.EncoderOnly.parse(plain, "r.toml"))


@pytest.mark.parametrize("name", ["tiny", "gpt2"])
def test_without_layers_is_for_an_encoder_alone(name: str) -> None:
    plain = PRESETS[name].plain()
    plain["decoder"]["layers"] = 0
    with pytest.raises(ConfigError, match=r"decoder\.layers = 0, but model\.kind = "):
        type(PRESETS[name]).parse(plain, "r.toml")
