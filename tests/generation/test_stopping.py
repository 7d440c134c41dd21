"""Stop strings against a plain search through the whole text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sublayer.generation.stopping import StopStrings

LETTERS = st.text(alphabet="abä", max_size=12)


@given(
    pieces=st.lists(st.text(alphabet="abä", max_size=4), max_size=12),
    stops=st.lists(st.text(alphabet="abä", min_size=1, max_size=4), max_size=3),
)
def test_a_text_is_cut_exactly_however_it_comes(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    # The first place at which a stop string is complete, and of those complete there the longest.
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    expected, first = text, None
    if ends:
        first = ends[0]
        expected = text[: first - max(len(stop) for stop in stops if text[:first].endswith(stop))]
    cut = StopStrings(stops)
    shown, come = "", ""
    for piece in pieces:
        shown += cut.push(piece)
        come += piece
        assert cut.stopped == (first is not None and len(come) >= first), "seen too late, or where there is none"
        assert expected.startswith(shown), "showed what must be cut"
        if not cut.stopped:
            held = come[len(shown) :]
            assert not held or any(stop.startswith(held) for stop in stops), "held back without need"
    assert shown + cut.flush() == expected


def test_nothing_is_held_without_stop_strings() -> None:
    cut = StopStrings([])
    assert [cut.push(piece) for piece in ("a", "", "bc")] == ["a", "", "bc"]
    assert not cut.stopped
