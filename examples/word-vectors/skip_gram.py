"""Learns vectors of English words by skip-gram (Mikolov et al. 2013), for a model to begin with.

Read are film reviews, articles and sentences that `sublayer data list` knows: 10 million words in all, none of them in
a part for validation or test. gensim learns, and writes word2vec's text format, which a recipe reads:

    pip install gensim
    python examples/word-vectors/skip_gram.py runs/english-words.vec
    sublayer train trec-pretrained

To learn from text of your own, give it instead, a text or a sentence on each line: `--text my.txt`.
"""

import argparse
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

from gensim.models import Word2Vec
from gensim.models.callbacks import CallbackAny2Vec

from sublayer.config import NamedCorpus, PlainText, SeveralCorpora
from sublayer.data.tables.documents import read_documents

ENGLISH = SeveralCorpora(
    corpora=(
        NamedCorpus(name="imdb"),
        NamedCorpus(name="wikitext-2", part="train"),
        NamedCorpus(name="tatoeba-en-es"),
        NamedCorpus(name="rotten-tomatoes", part="train"),
    )
)
ENDS = re.compile(r"(?<=[.!?])\s+|\n|<br />")
WORD = re.compile(r"\w+|[^\w\s]")


def sentences(texts: Iterator[str]) -> Iterator[list[str]]:
    """Lower-case words and signs, with 0 for every digit."""
    for text in texts:
        for sentence in ENDS.split(text):
            words = WORD.findall(re.sub(r"\d", "0", sentence.lower()))
            if len(words) > 1:
                yield words


class Progress(CallbackAny2Vec):
    """A line after each epoch."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.done, self.begin = epochs, 0, time.monotonic()

    def on_epoch_end(self, model: Word2Vec) -> None:
        self.done += 1
        print(f"epoch {self.done} of {self.epochs}, {time.monotonic() - self.begin:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--text", type=Path, help="plain text of your own")
    parser.add_argument("--size", type=int, default=300, help="numbers of a vector (300)")
    parser.add_argument("--window", type=int, default=5, help="words on either side that are predicted, at most (5)")
    parser.add_argument("--epochs", type=int, default=5, help="(5)")
    parser.add_argument("--least", type=int, default=3, help="how often a word must occur (3)")
    parser.add_argument("--workers", type=int, default=2, help="threads (2)")
    options = parser.parse_args()
    source = ENGLISH if options.text is None else PlainText(path=str(options.text))
    read = list(sentences(document.text for document in read_documents(source, Path())))
    random.Random(1).shuffle(read)
    print(f"{sum(map(len, read)):,} words in {len(read):,} sentences", flush=True)
    model = Word2Vec(
        read,
        sg=1,
        negative=5,
        sample=1e-4,
        vector_size=options.size,
        window=options.window,
        epochs=options.epochs,
        min_count=options.least,
        workers=options.workers,
        callbacks=[Progress(options.epochs)],
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    model.wv.save_word2vec_format(str(options.out))
    print(f"{len(model.wv):,} words with {options.size} numbers each: {options.out}")


if __name__ == "__main__":
    main()
