"""Forked children encode without threads, and the library is told so beforehand, else it prints a warning."""

from __future__ import annotations

import os

_PARALLELISM = "TOKENIZERS_PARALLELISM"


def quiet_fork() -> None:
    """From now on. Threads do not survive a fork; a child that used them could hang.

    A value that the user has set is left alone.
    """
    state: list[bool] = []

    def before() -> None:
        state.append(_PARALLELISM in os.environ)
        os.environ.setdefault(_PARALLELISM, "false")

    def after_in_parent() -> None:
        if state and not state.pop():
            os.environ.pop(_PARALLELISM, None)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=after_in_parent)
