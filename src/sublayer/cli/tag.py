"""`sublayer tag`: a label for each word."""

from __future__ import annotations

from sublayer.cli.arguments import BatchOfLines, Device, ModelFolder, Sentences, Threads, WeightFormat
from sublayer.cli.reading import answered, load_reader
from sublayer.cli.terminal import say


def tag(
    model: ModelFolder,
    sentences: Sentences = None,
    batch: BatchOfLines = 64,
    weights: WeightFormat = None,
    threads: Threads = None,
    device: Device = "auto",
) -> None:
    """Tag each word of a sentence. Words are separated by spaces.

    Prints CoNLL format: one word per line with its tag and the tag's probability, separated by tabs; an empty line
    after each sentence, and for each empty line of standard input.

    Example: sublayer tag models/tagger "Ada Lovelace lived in London ."
    """
    from sublayer.reading import Tagger

    tagger = load_reader(model, device, Tagger, "tag words", weights)
    for _, one in answered(sentences, batch, tagger.tag):
        if one is not None:
            for word, label, probability in zip(one.words, one.tags, one.probabilities, strict=True):
                say(f"{word}\t{label}\t{probability:.4f}")
        say("")
