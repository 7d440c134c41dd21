"""How the laws measure, what they leave as it was, and the command that runs them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import typer
from typer.testing import CliRunner

import sublayer.hub.folder as folder
import sublayer.nn.attend as attend
from laws.models import CONFIGS, build
from laws.one_stack import DECODER_CONFIGS, ENCODER_CONFIGS
from sublayer import config, laws
from sublayer.cli.check import check
from sublayer.laws.law import ROUNDINGS, Discrepancy, allowed, law
from sublayer.laws.measure import finding
from sublayer.laws.model_adapter import ModelAdapter, adapt


def test_relative_error_is_in_units_of_the_largest_expected() -> None:
    expected = torch.tensor([[4.0, -8.0]])
    assert laws.relative_error(torch.tensor([[4.0, -7.0]]), expected) == 1 / 8
    assert laws.relative_error(expected, expected) == 0.0


def test_relative_error_looks_at_real_positions_only() -> None:
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 5.0]])
    assert laws.relative_error(a, b, torch.tensor([[True, False]])) == 0.0
    assert laws.relative_error(a, b, torch.tensor([[True, True]])) == 3 / 5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_relative_error_of_what_is_not_finite_is_infinite(bad: float) -> None:
    a = torch.tensor([1.0, bad])
    assert laws.relative_error(a, a) == float("inf")
    assert laws.relative_error(a, torch.ones(2)) == float("inf")


def test_relative_error_against_zeros() -> None:
    assert laws.relative_error(torch.zeros(2), torch.zeros(2)) == 0.0
    assert laws.relative_error(torch.full((2,), 1e-30), torch.zeros(2)) == float("inf")


def test_relative_error_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        laws.relative_error(torch.zeros(2), torch.zeros(3))


def test_an_error_that_is_not_a_number_does_not_pass() -> None:
    assert not finding("law", float("nan"), 1.0).passed
    assert finding("law", 1.0, 1.0).passed
    assert not finding("law", 0.0, 1.0, fault="something else").passed


@pytest.mark.parametrize("c", [*CONFIGS[::9], *DECODER_CONFIGS[::8], *ENCODER_CONFIGS[::8]])
def test_rounding_is_about_what_a_narrower_type_costs(c: config.Model) -> None:
    wide, narrow = adapt(build(c)), adapt(build(c, dtype=torch.float32))
    inputs = laws.Inputs.draw(narrow.model)
    with torch.no_grad():
        apart = laws.relative_error(narrow.answer(inputs), wide.answer(inputs), wide.real(inputs))
        assert 1 / 20 < narrow.rounding(inputs) / apart < 20
        assert narrow.rounding(inputs) == narrow.rounding(inputs)


def test_what_is_allowed_grows_with_what_rounding_does_and_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = adapt(build(CONFIGS[0]))
    inputs = laws.Inputs.draw(adapter.model)
    for rounding, most in ((1e-7, 1e-5), (1e-5, ROUNDINGS * 1e-5), (0.5, 1e-3)):
        monkeypatch.setattr(ModelAdapter, "rounding", lambda self, inputs, measured=rounding: measured)
        assert allowed(adapter, inputs, 1e-5) == pytest.approx(most)
        assert allowed(adapter, inputs, 0.0) == 0.0


def test_a_law_allows_more_only_where_it_needs_more(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(CONFIGS[0])
    monkeypatch.setattr(ModelAdapter, "rounding", lambda self, inputs: 1e-3)

    def apart(error: float) -> laws.Finding:
        tried = law("this = that", ModelAdapter)(lambda adapter, inputs: Discrepancy(error, "", tolerance=1e-4))
        return tried(model, laws.Inputs.draw(model))

    assert (apart(5e-5).tolerance, apart(5e-5).passed) == (1e-4, True)
    assert (apart(2e-3).tolerance, apart(2e-3).passed) == (ROUNDINGS * 1e-3, True)
    assert not apart(1e-2).passed


EVERY_SHAPE = pytest.mark.parametrize("c", [CONFIGS[5], DECODER_CONFIGS[3], ENCODER_CONFIGS[5]], ids=lambda c: c.kind)


@EVERY_SHAPE
def test_check_all_leaves_the_model_as_it_was(c: config.Model) -> None:
    model = build(c, dtype=torch.float32)
    model.train()
    stack = model.decoder if hasattr(model, "decoder") else model.encoder
    stack.layers[0].eval()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    findings = laws.check_all(model)
    assert [finding.passed for finding in findings] == [True] * len(laws.laws_of(model))
    assert len({finding.law for finding in findings}) == len(laws.laws_of(model))
    assert [module.training for module in model.modules()] == modes
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


@EVERY_SHAPE
@pytest.mark.parametrize("max_length", [1, 2, 3])
def test_laws_on_a_model_with_few_positions(c: config.Model, max_length: int) -> None:
    model = build(c.model_copy(update={"max_length": max_length}))
    assert [finding for finding in laws.check_all(model) if not finding.passed] == []


@EVERY_SHAPE
@pytest.mark.parametrize("vocab_size", [1, 2])
def test_laws_on_a_model_with_few_words(c: config.Model, vocab_size: int) -> None:
    model = build(c.model_copy(update={"vocab_size": vocab_size}))
    assert [finding for finding in laws.check_all(model) if not finding.passed] == []


@pytest.mark.parametrize("c", [CONFIGS[3], DECODER_CONFIGS[1], ENCODER_CONFIGS[3]], ids=lambda c: c.kind)
def test_laws_in_half_precision(c: config.Model) -> None:
    model = build(c, dtype=torch.float32).to(torch.bfloat16)
    assert [finding for finding in laws.check_all(model) if not finding.passed] == []


@pytest.fixture
def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(check)
    return app


def run(command: typer.Typer, monkeypatch: pytest.MonkeyPatch, *options: str, c: config.Model = CONFIGS[4]):  # type: ignore[no-untyped-def]
    model = build(c, dtype=torch.float32)
    monkeypatch.setattr(folder, "read", lambda path: SimpleNamespace(model=model))
    return CliRunner().invoke(command, ["some/folder", *options], env={"COLUMNS": "200"})


@pytest.mark.parametrize("options", [(), ("--precision", "float64"), ("--seed", "7")])
def test_command_shows_every_law(command: typer.Typer, monkeypatch: pytest.MonkeyPatch, options: tuple[str]) -> None:
    result = run(command, monkeypatch, *options)
    assert result.exit_code == 0, result.output
    assert result.output.count(" yes ") == len(laws.LAWS) - 2
    assert ("1e-10" in result.output) == ("float64" in options)
    assert "Not asked, because pairs of texts are not packed: packed = separate." in result.output


@EVERY_SHAPE
def test_command_knows_every_shape(command: typer.Typer, monkeypatch: pytest.MonkeyPatch, c: config.Model) -> None:
    result = run(command, monkeypatch, c=c)
    assert result.exit_code == 0, result.output
    shown, below = result.output.split("Not asked, because", 1)
    model = build(c)
    for name in (each.name for each in laws.LAWS):
        assert (f" {name} " in shown) != (name in laws.not_applicable(model))
        assert (name in " ".join(below.split())) == (name in laws.not_applicable(model))


def test_command_exits_with_1_where_a_law_does_not_hold(command: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = attend.explicit
    monkeypatch.setattr(attend, "explicit", lambda *a, scale, **k: plain(*a, scale=1.0, **k))
    result = run(command, monkeypatch)
    assert result.exit_code == 1
    assert f"2 of {len(laws.LAWS) - 2} laws do not hold: fused = explicit, tapped = untapped" in result.output
