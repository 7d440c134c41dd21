"""The tree of what is left out of the training text because it is probably damaged."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from sublayer.config.part import Part

__all__ = ["SUSPICIOUS", "Filter"]

Ratio = Annotated[float, Field(gt=1.0, le=1000.0)]


class Filter(Part):
    """Which rows are left out of training. Every check is off until it is set; what is held out stays as it is, so that
    two filters are compared on the same text. `sublayer data check` counts what each check finds.

    min_words, max_words: of a side, between white space. length_ratio: the longer side over the shorter one, in
    characters, ten more counted on each so that short sentences pass. duplicates: a row that came before, but for case
    and white space. identical: both sides say the same. script: most letters of a side are of another script than
    those of most rows. control: control characters, zero-width spaces, overrides of the writing direction, characters
    that could not be decoded. markup: HTML or XML tags and entities. mojibake: UTF-8 that was read as Latin-1, as in
    "cafÃ©".
    """

    min_words: PositiveInt | None = None
    max_words: PositiveInt | None = None
    length_ratio: Ratio | None = None
    duplicates: bool = False
    identical: bool = False
    script: bool = False
    control: bool = False
    markup: bool = False
    mojibake: bool = False


SUSPICIOUS = Filter(
    length_ratio=4.0, duplicates=True, identical=True, script=True, control=True, markup=True, mojibake=True
)
"""What is counted and reported of any text, whether it is left out or not."""
