"""What a model card says of where the text came from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from sublayer import config
from sublayer.data import corpora
from sublayer.training import model_card


def test_each_of_several_corpora_is_named_once() -> None:
    names = ("wikitext-2", "trec", "wikitext-2")
    source = config.SeveralCorpora(corpora=tuple(config.NamedCorpus(name=name) for name in names))
    said = model_card._data(cast("Any", SimpleNamespace(data=SimpleNamespace(source=source))))  # pyright: ignore[reportPrivateUsage]
    for name in names:
        assert said.count(corpora.find(name).title) == 1
        assert said.count(corpora.find(name).attribution) == 1
