"""A model that decodes, with its tokenizer; the modules may come when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from sublayer.fast.engine.decoder import EngineDecoder
    from sublayer.models.backend import DecoderBackend
    from sublayer.text import Tokenizer

M = TypeVar("M")
"""The model's type."""


class Deferred(Generic[M]):
    """A model that is read when somebody asks for it. Until then the engine answers alone, without torch.

    Args:
        read: makes what has the model.
    """

    def __init__(self, engine: EngineDecoder, read: Callable[[], DecodingModel[M]]) -> None:
        self.engine: EngineDecoder | None = engine
        self._read = read
        self._made: DecodingModel[M] | None = None

    def whole(self) -> DecodingModel[M]:
        """What has the model, which may be changed from now on: the engine answers no more."""
        if self._made is None:
            import torch

            # Whoever asks may be in that mode, and what is made in it can be used nowhere else.
            with torch.inference_mode(False):
                self._made, self.engine = self._read(), None
        return self._made


class DecodingModel(Generic[M]):
    """See `Translator` and `Generator`.

    Args:
        backend: the backend that decodes; default: the fastest that there is for the model (`fast/decoding/`). A
            deferred model has its own.
    """

    def __init__(self, model: M | Deferred[M], tokenizer: Tokenizer, backend: DecoderBackend[Any] | None) -> None:
        self.tokenizer = tokenizer
        self._deferred: Deferred[M] | None = None
        if isinstance(model, Deferred):
            self._deferred = model
            return
        from sublayer.fast.decoding import decoder_backend

        whole: Any = model
        whole.eval()
        self._model: M = whole
        self._is_given = backend is not None
        # A model, and what decodes for it.
        self._own: tuple[Any, DecoderBackend[Any]] = whole, decoder_backend(whole) if backend is None else backend

    def _resolve(self) -> None:
        if self._deferred is not None:
            whole = self._deferred.whole()
            self._model, self._is_given, self._own, self._deferred = whole._model, whole._is_given, whole._own, None

    @property
    def model(self) -> M:
        """The modules, read now if nothing has asked for them yet; from then on what is changed in them counts."""
        self._resolve()
        return self._model

    @model.setter
    def model(self, model: M) -> None:
        self._resolve()
        self._model = model

    @property
    def _alone(self) -> EngineDecoder | None:
        """The engine, while nobody has asked for the modules."""
        return None if self._deferred is None else self._deferred.engine

    @property
    def is_deferred(self) -> bool:
        """Whether nobody has asked for the modules yet."""
        return self._deferred is not None

    def prepare(self) -> bool:
        """Make now what is made at the first use; return whether the engine decodes, and not the modules."""
        if self._alone is not None:
            return True
        prepare = getattr(self.backend, "prepare", None)
        return prepare is not None and prepare()

    @property
    def max_length(self) -> int:
        """How many positions the model has: tokens that it reads, and writes, at most."""
        alone = self._alone
        return self._config.max_length if alone is None else alone.geometry.max_length

    @property
    def vocab_size(self) -> int:
        """How many tokens the model knows."""
        alone = self._alone
        return self._config.vocab_size if alone is None else alone.geometry.vocabulary

    @property
    def _config(self) -> Any:
        model: Any = self.model
        return model.config

    @property
    def backend(self) -> DecoderBackend[Any]:
        """What is searched."""
        from sublayer.fast.decoding import decoder_backend

        model: Any = self.model
        of, backend = self._own
        if of is not model and not self._is_given:
            # Another model has been put in the place of the first.
            backend = decoder_backend(model)
            self._own = (model, backend)
        return backend
