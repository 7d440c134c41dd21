"""`sublayer classify`: a label for each text."""

from __future__ import annotations

from typing import Annotated

import typer

from sublayer.cli.arguments import BatchOfLines, Device, ModelFolder, Texts, Threads, WeightFormat
from sublayer.cli.clustering import CLUSTER, in_cluster
from sublayer.cli.options import Told, from_tree
from sublayer.cli.reading import answered, load_reader
from sublayer.cli.terminal import say


@from_tree(cluster=CLUSTER)
def classify(
    model: ModelFolder,
    texts: Texts = None,
    best: Annotated[int, typer.Option(min=1, help="Number of labels to print for each text.")] = 1,
    batch: BatchOfLines = 64,
    weights: WeightFormat = None,
    threads: Threads = None,
    device: Device = "auto",
    *,
    cluster: Told,
) -> None:
    """Classify texts. Prints label, probability and text, separated by tabs. With --cluster, the files --in.

    Each line of standard input gives one line of output; an empty line gives an empty line.

    Example: sublayer classify models/sentiment "A film to see twice."

    Example: sublayer classify models/sentiment --best 2 < english.txt
    """
    if cluster:
        from sublayer import cluster as jobs

        refused = {"--threads": threads is not None, "--best": best > 1}
        in_cluster(jobs.classify, model, cluster, texts=texts, device=device, weights=weights, refused=refused)
        return
    from sublayer.reading import Classifier

    classifier = load_reader(model, device, Classifier, "classify texts", weights)
    for text, one in answered(texts, batch, classifier.classify):
        ranked = [] if one is None else list(one.probabilities.items())[:best]
        say("\t".join([*(f"{label}\t{probability:.4f}" for label, probability in ranked), text]) if one else "")
