"""The page in a notebook, by anywidget: the same drawing, with the model in the notebook's own kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sublayer.errors import ConfigError, SublayerError
from sublayer.inspection import assets
from sublayer.inspection.loaded_model import LoadedModel, describe
from sublayer.inspection.look import look
from sublayer.inspection.view import Question

if TYPE_CHECKING:
    from anywidget import AnyWidget


def view(
    model: LoadedModel,
    text: str,
    *,
    target: str | None = None,
    tokens: int = 16,
    silenced: Sequence[tuple[str, int, int]] = (),
    chat: bool = False,
    name: str = "",
) -> AnyWidget:
    """What `model` attends to while it reads `text`, and what it makes of it, as a widget to look at and to play with.

    Args:
        model: what `sublayer.load` gave. target: a translation to read along, instead of the model's own.
        tokens: how many it may add to a prompt. chat: take the text for a turn of a conversation.
        silenced: heads that are off, as ("encoder" | "decoder" | "cross", layer, head), counted from 0.
        name: what the model is called in the heading.

    Raises:
        InputError: the text is empty or too long, or the model has no attention. ConfigError: there is no anywidget.
    """
    about = describe(model, name)
    given = {
        "text": text,
        "target": target,
        "tokens": tokens,
        "chat": chat,
        "silenced": [{"map": kind, "layer": layer, "head": head} for kind, layer, head in silenced],
    }
    question = Question.parse(given, "view")
    shown = look(model, question, about=about)

    def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
        return look(model, Question.parse(asked, "the question"), about=about).plain()

    return _widget_class()(view=shown.plain(), answer=answer)


@cache
def _widget_class() -> Any:
    """Made when first asked for: anywidget is an extra."""
    try:
        import anywidget
        import traitlets
    except ModuleNotFoundError as missing:
        raise ConfigError(f"{missing.name} is not installed", "pip install 'sublayer[inspect]'.") from None

    class Page(anywidget.AnyWidget):
        _esm = assets.bundle("widget.js")
        _css = assets.text("style.css")
        view = traitlets.Dict().tag(sync=True)
        live = traitlets.Bool(True).tag(sync=True)

        def __init__(self, *, answer: Any, **settings: Any) -> None:
            super().__init__(**settings)
            self._answer = answer
            self.on_msg(self._hear)

        def _hear(self, widget: Any, asked: dict[str, Any], buffers: Any) -> None:
            number = asked.get("number")
            try:
                self.send({"number": number, "view": self._answer(asked.get("question", {}))})
            except SublayerError as error:
                self.send({"number": number, "error": {"what": error.what, "remedy": error.remedy}})

    return Page
