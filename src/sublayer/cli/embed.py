"""`sublayer embed`: a vector for each text."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from sublayer.cli.arguments import BatchOfLines, Device, ModelFolder, Texts, Threads, WeightFormat
from sublayer.cli.clustering import CLUSTER, in_cluster
from sublayer.cli.options import Told, from_tree
from sublayer.cli.reading import answered, load_reader
from sublayer.cli.terminal import say
from sublayer.untrusted import to_json


@from_tree(cluster=CLUSTER)
def embed(
    model: ModelFolder,
    texts: Texts = None,
    similar: Annotated[
        bool, typer.Option("--similar", help="Print the cosine similarity of each pair of texts instead of vectors.")
    ] = False,
    batch: BatchOfLines = 64,
    weights: WeightFormat = None,
    threads: Threads = None,
    device: Device = "auto",
    *,
    cluster: Told,
) -> None:
    """Embed texts. Prints one JSON object per text: {"text": …, "vector": [ … ]}. With --cluster, the files --in.

    Each line of standard input gives one line of output. An empty line has the vector null, and the similarity "-".

    Example: sublayer embed models/minilm --similar "A cat sat." "There was a kitten." "Stocks fell."
    """
    if cluster:
        from sublayer import cluster as jobs

        refused = {"--threads": threads is not None, "--similar": similar}
        in_cluster(jobs.embed, model, cluster, texts=texts, device=device, weights=weights, refused=refused)
        return
    import torch
    from torch.nn import functional as F

    from sublayer.reading import Embedder

    embedder = load_reader(model, device, Embedder, "turn texts into vectors", weights)
    found: list[torch.Tensor] = []
    seen: list[str] = []
    for text, vector in answered(texts, batch, lambda chunk: list(embedder.embed(chunk))):
        if similar:
            seen.append(text)
            # Alike to nothing: an empty line keeps its row and its column.
            found.append(torch.full((embedder.model.config.dim,), float("nan")) if vector is None else vector)
            continue
        rounded = None
        if vector is not None:
            rounded = [float(f"{number:.7g}") for number in cast("list[float]", vector.tolist())]
        say(to_json({"text": text, "vector": rounded}))
    if similar and found:
        unit = F.normalize(torch.stack(found), dim=-1)
        for text, row in zip(seen, unit @ unit.T, strict=True):
            numbers = cast("list[float]", row.tolist())
            say("\t".join([*("-" if number != number else f"{number:.3f}" for number in numbers), text]))
