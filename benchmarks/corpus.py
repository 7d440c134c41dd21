"""The English-Spanish corpus as token ids. What takes seconds to make is made once and kept in the cache folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sublayer import config, files
from sublayer.config.load import load_recipe
from sublayer.data import sources
from sublayer.data.encoding import EncodedPairs, encode
from sublayer.data.ragged import Ragged
from sublayer.data.report import Report
from sublayer.data.sources import Pairs
from sublayer.data.split import Splits, split
from sublayer.text import Affixes, PairAffixes, Tokenizer

TATOEBA = config.Data(source=config.NamedCorpus(name="tatoeba-en-es"))
BPE_8000 = config.Subwords(vocab_size=8000)
EXAMPLE = Path(__file__).parents[1] / "examples" / "own-text" / "recipe.toml"


@dataclass(frozen=True)
class Corpus:
    """Text in three parts, and the tokenizer trained on the first."""

    splits: Splits
    tokenizer: Tokenizer
    max_length: int

    @cached_property
    def encoded(self) -> EncodedPairs:
        """The training part as ids. Made once: a search over settings reads it many times."""
        affixes = PairAffixes.of(self.tokenizer, config.Decoding())
        return encode(self.splits.train, self.tokenizer, self.max_length, affixes)


def load(data: config.Data = TATOEBA, recipe: config.TokenizerRecipe = BPE_8000, folder: Path = Path()) -> Corpus:
    """The corpus of a recipe's data and tokenizer; `folder` is where the recipe's relative paths start."""
    splits = split(sources.read(data.source, folder), data.split, folder)
    return Corpus(splits, _tokenizer(splits.train, recipe), data.max_length)


def example() -> Corpus:
    """Return the small corpus of `examples/own-text`, which needs nothing to be fetched: for `--quick`."""
    loaded = load_recipe(str(EXAMPLE))
    return load(loaded.recipe.data, loaded.recipe.tokenizer, loaded.folder)


def cache_folder() -> Path:
    """Where benchmarks keep what they can make again."""
    folder = files.cache_folder() / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def encoded_file(corpus: Corpus) -> Path:
    """A file with the training part as ids, for `read_encoded` in a worker's process."""
    path = cache_folder() / f"train-{corpus.tokenizer.fingerprint[:16]}-{corpus.max_length}.npz"
    if not path.is_file():
        pairs = corpus.encoded
        np.savez(
            path,
            source=pairs.sources.tokens,
            source_starts=pairs.sources.starts,
            target=pairs.targets.tokens,
            target_starts=pairs.targets.starts,
            rows=pairs.rows,
            affixes=np.array([pairs.affixes.pad, pairs.affixes.start, pairs.affixes.end]),
        )
    return path


def read_encoded(path: Path) -> EncodedPairs:
    """What `encoded_file` wrote."""
    held = np.load(path)
    pad, start, end = held["affixes"].tolist()
    return EncodedPairs(
        sources=Ragged(held["source"], held["source_starts"]),
        targets=Ragged(held["target"], held["target_starts"]),
        rows=held["rows"],
        report=Report(read=len(held["rows"]), kept=len(held["rows"])),
        affixes=PairAffixes(Affixes((), (end,), pad), start, (), end),
    )


def _tokenizer(train: Pairs, recipe: config.TokenizerRecipe) -> Tokenizer:
    text = "\n".join([recipe.model_dump_json(), *train.sources, *train.targets])
    path = cache_folder() / f"tokenizer-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.json"
    if not path.is_file():
        # In the order of `sublayer train`, which makes it the same tokenizer.
        Tokenizer.train((line for side in (train.sources, train.targets) for line in side), recipe).save(path)
    return Tokenizer.load(path)
