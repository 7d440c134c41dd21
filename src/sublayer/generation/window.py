"""What a model reads of a text that is longer than its context: the end of it, in a window that moves.

Where the window would be longer than the context, its older half is forgotten and the rest is read again from position
0. To drop the oldest keys and values from the cache instead would be quicker and is not the same: from the second layer
on, what is kept was computed from what is dropped. Read again, the window is right for any kind of position.
"""

from __future__ import annotations


def window_start(length: int, context: int) -> int:
    """Where the window begins in a text of `length` tokens, all of which but the window's are forgotten.

    It is 0 as long as the text fits, and a function of the two numbers alone.

    Args:
        context: tokens that the model can read at once, 2 or more.
    """
    moved = context + 1 - context // 2
    return -(-max(0, length - context) // moved) * moved
