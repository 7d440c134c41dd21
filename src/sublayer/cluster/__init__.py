"""Inference over many machines, with Ray: data sets through a model (Ray Data), and the server (Ray Serve).

    from sublayer import cluster

    cluster.translate("runs/en-es", "corpus/*.parquet", "translated", workers=8, beam=1)

Nothing of Ray is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from sublayer.cluster.serving import deployment

if TYPE_CHECKING:
    from sublayer import config
    from sublayer.cluster.running import Summary

__all__ = ["classify", "deployment", "embed", "generate", "translate"]


class How(TypedDict, total=False):
    """What all jobs may be told.

    column: where the text stands; default "text", else "source". output_format: default: that of the
    input.
    workers: actors, each with the model; default: as many as there are CPUs for. cpus_per_worker: threads of each.
    address: of a Ray cluster ("auto", "HOST:PORT"); default: one that is started on this machine. rows_per_part: of a
    file of the output. device: "cuda" takes a GPU for each worker. weights: weight format on a CPU. progress: told
    how many parts are done, and how many there are.
    """

    column: str | None
    output_format: Literal["parquet", "jsonl"] | None
    workers: int | None
    cpus_per_worker: int
    address: str | None
    rows_per_part: int
    device: str
    weights: config.Weights | None
    progress: Callable[[int, int], None]


Inputs = str | Path | Sequence[str | Path]
"""Files of Parquet or of JSON lines; names may have * and ? in them."""


def translate(
    model: str | Path,
    inputs: Inputs,
    out: str | Path,
    *,
    beam: int | None = None,
    length_penalty: float | None = None,
    decoding: Mapping[str, Any] | None = None,
    shortlist: bool = False,
    **how: Unpack[How],
) -> Summary:
    """Translate the text of each row into the columns `translation` and `complete` (False where it was cut).

    All other columns go through as they are. A row that cannot be translated has null there, and says why in `error`;
    it is null in all others. A run that was stopped goes on when it is called again.

    Args:
        beam, length_penalty: as `Translator.translate`. decoding: other fields of `config.Decoding`. shortlist: choose
            among the tokens that `sublayer shortlist` found.

    Raises:
        SublayerError: anything that the user can mend. What some rows or parts came to is in the summary, and
            `Summary.require` raises for it.
    """
    given = _given(beam=beam, length_penalty=length_penalty, decoding=decoding, shortlist=shortlist or None)
    return _run("translate", model, inputs, out, given, how)


def generate(
    model: str | Path,
    inputs: Inputs,
    out: str | Path,
    *,
    search: config.Search | None = None,
    constraints: config.Constraints | None = None,
    max_tokens: int | None = None,
    stop: Sequence[str] | None = None,
    seed: int | None = None,
    **how: Unpack[How],
) -> Summary:
    """Continue the text of each row: columns `completion` and `ended` ("end", "stop" or "length").

    Arguments as `Generator.generate`, all else as `translate`. With a seed, the same rows give the same texts again.
    """
    plain = {"search": search and search.plain(), "constraints": constraints and constraints.plain()}
    given = _given(**plain, max_tokens=max_tokens, stop=stop and list(stop), seed=seed)
    return _run("generate", model, inputs, out, given, how)


def embed(model: str | Path, inputs: Inputs, out: str | Path, **how: Unpack[How]) -> Summary:
    """Embed the text of each row: the column `embedding`, a list of float32. All else as `translate`."""
    return _run("embed", model, inputs, out, {}, how)


def classify(model: str | Path, inputs: Inputs, out: str | Path, **how: Unpack[How]) -> Summary:
    """Classify the text of each row: columns `label` and `probability`. All else as `translate`."""
    return _run("classify", model, inputs, out, {}, how)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _run(name: str, model: str | Path, inputs: Inputs, out: str | Path, options: dict[str, Any], how: How) -> Summary:
    from sublayer.cluster.jobs import Job
    from sublayer.cluster.running import run

    told: dict[str, Any] = {**how}
    given = _given(device=told.pop("device", None), weights=told.pop("weights", None))
    patterns = [inputs] if isinstance(inputs, str | Path) else inputs
    return run(Job(name, Path(model).resolve(), options, **given), patterns, Path(out), **told)
