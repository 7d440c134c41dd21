"""F1 of spans by seqeval's rule: the cases that its documentation shows, and spans there and back in every scheme."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublayer.tasks.spans import Span, SpanScore, span_scores, spans, together


def shown(tags: list[str]) -> list[tuple[str, int, int]]:
    return [(span.kind, span.first, span.last) for span in spans(tags)]


def test_the_documented_example() -> None:
    """README of seqeval: precision, recall and F1 are 0.50; MISC 0, PER 1."""
    true = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    found = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    scores = span_scores(true, found)
    assert scores == {"MISC": SpanScore(0, 1, 1), "PER": SpanScore(1, 1, 1)}
    whole = together(scores.values())
    assert whole == SpanScore(1, 2, 2)
    assert whole.f1 == 0.5
    assert shown(["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O", "B-PER", "I-PER"]) == [
        ("MISC", 3, 5),
        ("PER", 7, 8),
    ]
    assert shown(["B-PER", "I-PER", "O", "B-LOC"]) == [("PER", 0, 1), ("LOC", 3, 3)]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["I-PER", "I-PER", "O"], [("PER", 0, 1)]),
        (["O", "I-PER"], [("PER", 1, 1)]),
        (["B-PER", "I-LOC"], [("PER", 0, 0), ("LOC", 1, 1)]),
        (["B-PER", "B-PER"], [("PER", 0, 0), ("PER", 1, 1)]),
        (["I-PER", "B-PER", "I-PER"], [("PER", 0, 0), ("PER", 1, 2)]),
        (["S-PER", "I-PER"], [("PER", 0, 0), ("PER", 1, 1)]),
        (["B-PER", "E-PER", "E-PER"], [("PER", 0, 1), ("PER", 2, 2)]),
        (["B-PER", "I-PER", "S-PER"], [("PER", 0, 1), ("PER", 2, 2)]),
        (["B", "I", "O", "I"], [("_", 0, 1), ("_", 3, 3)]),
        (["B-A-B", "I-A-B"], [("A-B", 0, 1)]),
        ([], []),
        (["O"], []),
    ],
)
def test_tags_that_no_scheme_allows_are_read_too(tags: list[str], expected: list[tuple[str, int, int]]) -> None:
    assert shown(tags) == expected


def written(layout: list[tuple[str | None, int]], scheme: str) -> tuple[list[str], list[Span]]:
    """Runs of words, a kind (or None: outside) and a length each, as tags of a scheme; and the spans that they are."""
    tags: list[str] = []
    wanted: list[Span] = []
    for kind, length in layout:
        if kind is None:
            tags += ["O"] * length
            continue
        wanted.append(Span(kind, len(tags), len(tags) + length - 1))
        letters = {
            "IOB2": ["B"] + ["I"] * (length - 1),
            "IOE2": ["I"] * (length - 1) + ["E"],
            "IOBES": ["S"] if length == 1 else ["B", *["I"] * (length - 2), "E"],
        }[scheme]
        tags += [f"{letter}-{kind}" for letter in letters]
    return tags, wanted


LAYOUTS = st.lists(st.tuples(st.sampled_from([None, "PER", "LOC"]), st.integers(1, 4)), max_size=8)


@given(layout=LAYOUTS, scheme=st.sampled_from(["IOB2", "IOE2", "IOBES"]))
def test_spans_come_back_from_every_scheme(layout: list[tuple[str | None, int]], scheme: str) -> None:
    tags, wanted = written(layout, scheme)
    assert spans(tags) == wanted


@given(layouts=st.lists(st.tuples(LAYOUTS, LAYOUTS), max_size=5))
def test_scores_count_equal_spans(layouts: list[tuple[Any, Any]]) -> None:
    true = [written(one, "IOB2") for one, _ in layouts]
    found = [written(other, "IOBES") for _, other in layouts]
    length = [max(len(a), len(b)) for (a, _), (b, _) in zip(true, found)]
    padded = [[[*tags, *["O"] * (size - len(tags))] for (tags, _), size in zip(side, length)] for side in (true, found)]
    whole = together(span_scores(*padded).values())
    assert whole.right == sum(span in b for (_, a), (_, b) in zip(true, found) for span in a)
    assert (whole.true, whole.found) == (sum(len(a) for _, a in true), sum(len(b) for _, b in found))
    precision, recall = whole.right / max(1, whole.found), whole.right / max(1, whole.true)
    assert whole.f1 == pytest.approx(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
