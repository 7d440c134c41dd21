"""The picture of what heads do: a map for each score, whatever the sizes."""

from __future__ import annotations

import re

import pytest
import torch

from sublayer.errors import InputError
from sublayer.inspection.ablation import Ablation, Importance
from sublayer.inspection.groups import Group
from sublayer.inspection.head_picture import draw_heads
from sublayer.inspection.heads import MEASURES, HeadScores


def _scores(layers: int, heads: int, *names: str) -> HeadScores:
    names_of = tuple(f"decoder.layers.{layer}.self_attention" for layer in range(layers))
    group = Group("decoder", "Decoder self-attention", names_of, causal=True, heads=heads)
    values = {name: torch.rand(layers, heads, dtype=torch.float64) for name in names}
    return HeadScores(group, values, dict.fromkeys(names, 0.25), dict.fromkeys(names, 7))


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (3, 4), (10, 25)])
def test_a_map_for_each_score_and_for_what_is_lost(tmp_path, layers, heads):
    one = _scores(layers, heads, *MEASURES)
    change = torch.randn(layers, heads, dtype=torch.float64)
    ablation = Ablation(2.0, 70, [Importance(one.group, change, change.abs())])
    for name in ("heads.svg", "heads.png"):
        draw_heads([one], tmp_path / name, ablation=ablation, title="What <they> do & how")
    text = (tmp_path / "heads.svg").read_text()
    for title in (*MEASURES, "loss when off", "Decoder self-attention"):
        assert text.count(f">{title}<") == 1
    assert "What &lt;they&gt; do &amp; how" in text
    assert len(re.findall("<image", text)) == len(MEASURES) + 1
    assert f"scale ±{change.abs().max():.2g}" in text


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(InputError, match=r"ends in '\.gif'"):
        draw_heads([_scores(1, 1, "first")], tmp_path / "a.gif")
    with pytest.raises(InputError, match="no scores"):
        draw_heads([], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
