"""A model that is built without memory: the same parameters, none of them anywhere."""

from __future__ import annotations

import pytest

from laws.models import CONFIGS
from sublayer.models import build_model
from sublayer.models.empty import without_memory


@pytest.mark.parametrize("tree", CONFIGS[:6])
def test_it_has_the_parameters_of_the_model_and_none_is_anywhere(tree):
    with without_memory():
        empty = build_model(tree)
    usual = build_model(tree)
    shapes = {name: parameter.shape for name, parameter in usual.named_parameters()}
    assert {name: parameter.shape for name, parameter in empty.named_parameters()} == shapes
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert not any(parameter.is_meta for parameter in usual.parameters())
