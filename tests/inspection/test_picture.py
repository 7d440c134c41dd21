"""Pictures: they exist, are what their suffix says, and show the words as they are."""

from __future__ import annotations

import errno
import math
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from sublayer.errors import InputError, StorageError
from sublayer.inspection.attention import AttentionMaps
from sublayer.inspection.picture import draw_attention, labels

SOURCE = ["▁The", "▁cat", "▁un", "comfort", "able", "</s>"]
TARGET = ["▁El", "▁gato", "▁inc", "ómodo"]


def _maps(sources: int, targets: int, layers: int = 2, heads: int = 3) -> AttentionMaps:
    def random(rows: int, columns: int, hidden: float = 0.0) -> torch.Tensor:
        future = torch.full((rows, columns), hidden).triu(1) if hidden else torch.zeros(rows, columns)
        return (2 * torch.randn(layers, heads, rows, columns) + future).softmax(-1)

    return AttentionMaps(
        random(sources, sources),
        random(targets + 1, targets + 1, -math.inf),
        random(targets + 1, sources),
        list(range(sources)),
        list(range(targets + 1)),
        list(range(targets + 1)),
    )


def _words(path: Path) -> list[str]:
    return [text for text in ("".join(node.itertext()).strip() for node in _nodes(path, "text")) if text]


def _nodes(path: Path, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.parse(path).iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


def _size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_png(tmp_path):
    path = tmp_path / "made" / "attention.PNG"
    draw_attention(_maps(6, 4), SOURCE, TARGET, path, source="The cat.", translation="El gato.")
    width, height = _size(path)
    assert 600 < width < 2000
    assert 1000 < height < 4000
    assert [file.name for file in path.parent.iterdir()] == ["attention.PNG"]


def test_svg_holds_the_words_the_title_and_a_panel_a_head(tmp_path):
    path = tmp_path / "attention.svg"
    draw_attention(_maps(6, 4), SOURCE, TARGET, path, source="The cat.", translation="El gato.")
    words = _words(path)
    for word in ["The cat.", "→ El gato.", "cat", "·comfort", "gato", "·ómodo", "</s>", "Cross-attention", "layer 1"]:
        assert word in words, word
    # Rows: the token being fed in the decoder's section, the one being predicted in the cross-attention's.
    assert words.count("<s>") == 2 + 3
    assert len(_nodes(path, "image")) >= 3 * 2 * 3


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_maps_give_the_same_file(tmp_path, suffix):
    maps, paths = _maps(6, 4), [tmp_path / f"{name}{suffix}" for name in ("one", "other")]
    for path in paths:
        draw_attention(maps, SOURCE, TARGET, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_chosen_layers_only(tmp_path):
    path = tmp_path / "attention.svg"
    draw_attention(_maps(6, 4, layers=4), SOURCE, TARGET, path, layers=[3, 1])
    words = _words(path)
    assert [word for word in words if word.startswith("layer")] == ["layer 3", "layer 1"] * 3


def test_words_are_shown_literally_whatever_is_in_them(tmp_path):
    strange = ["▁$x^2$", "▁<b>&amp;</b>", "$\\frac", "a_b{}", "\x07\udc80", "</s>"]
    path = tmp_path / "attention.svg"
    draw_attention(_maps(6, 4), strange, TARGET, path, source="costs $5 or $6 <i>", translation="$\\alpha\n$ \x00")
    words = _words(path)
    for word in [
        "$x^2$",
        "<b>&amp;</b>",
        "$\\frac",
        "·a_b{}",
        "\ufffd\ufffd",
        "costs $5 or $6 <i>",
        "→ $\\alpha $ \ufffd",
    ]:
        assert word in words, word
    draw_attention(_maps(6, 4), strange, TARGET, tmp_path / "attention.png", source="$5 or $6", translation="$\\alpha$")


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_any_script_is_drawn_without_a_warning(tmp_path, suffix):
    source = ["▁Где", "▁мои", "ключи", "我的", "钥匙", "</s>"]
    path = tmp_path / f"attention{suffix}"
    draw_attention(_maps(6, 4), source, ["▁أين", "▁מפתחות", "🔑", "है"], path, source="我的钥匙" * 30, translation="🔑")
    assert path.stat().st_size > 10_000


def test_sizes_from_one_token_to_very_many(tmp_path):
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    draw_attention(_maps(1, 0, layers=1, heads=1), ["</s>"], [], small)
    draw_attention(_maps(250, 200, layers=6, heads=1), ["▁word"] * 250, ["▁palabra"] * 200, large, layers=[0])
    assert _size(small)[0] > 400
    width, height = _size(large)
    assert width < 1500
    assert width * height < 60e6


def test_labels():
    assert labels(["I", "▁don", "'", "t", "▁▁know", "▁", "3", "4", ".", "</s>"]) == [
        *("I", "don", "'", "·t", "▁know", "▁", "3", "4", ".", "</s>")
    ]
    assert labels(["▁我", "的"]) == ["我", "的"]
    assert labels(["▁" + "x" * 40]) == ["x" * 15 + "…"]


@pytest.mark.parametrize(
    ("name", "message"), [("a.jpeg", r"'\.jpeg'.*a\.png"), ("a", r"no suffix.*a\.png"), ("a.png.pdf", r"'\.pdf'")]
)
def test_another_suffix_is_refused_with_the_remedy(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        draw_attention(_maps(6, 4), SOURCE, TARGET, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_bad_arguments(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(InputError, match=r"no layer 2.*0 to 1"):
        draw_attention(_maps(6, 4), SOURCE, TARGET, path, layers=[0, 2])
    with pytest.raises(InputError, match="layers"):
        draw_attention(_maps(6, 4), SOURCE, TARGET, path, layers=[])
    with pytest.raises(InputError, match="source_pieces has 5"):
        draw_attention(_maps(6, 4), SOURCE[1:], TARGET, path)
    with pytest.raises(InputError, match="target_pieces has 5"):
        draw_attention(_maps(6, 4), SOURCE, [*TARGET, "x"], path)
    path.mkdir()
    with pytest.raises(InputError, match="is a folder"):
        draw_attention(_maps(6, 4), SOURCE, TARGET, path)


def test_a_full_disk_leaves_the_old_picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    full = OSError(errno.ENOSPC, "No space left on device")
    with patch("matplotlib.figure.Figure.savefig", side_effect=full), pytest.raises(StorageError, match="No space"):
        draw_attention(_maps(6, 4), SOURCE, TARGET, path)
    assert path.read_bytes() == b"old"
