"""A running server with small models of every shape behind it, in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from laws.models import redraw
from readers import HEADS, encoder
from readers import word_tokenizer as words
from recurrent_models import TEXTS
from recurrent_models import build as build_recurrent
from sublayer import config
from sublayer.fast.decoding import BackendName, decoder_backend
from sublayer.generation.generator import Generator
from sublayer.generation.translator import Translator
from sublayer.hub.folder import Loaded
from sublayer.inspection.listening import bound
from sublayer.models import DecoderOnly, EncoderDecoder
from sublayer.reading import Classifier, Embedder, Filler, Tagger
from sublayer.serving.app import application
from sublayer.serving.keys import Keys
from sublayer.serving.limits import BatchLimits, RequestLimits
from sublayer.serving.metrics import Metrics
from sublayer.serving.running import uvicorn_server
from sublayer.serving.served import Models, ServedModel
from sublayer.serving.server import Server
from sublayer.text import Tokenizer
from sublayer.text.specials import Specials

LINES = [
    "Where are my keys? They are on the table near the door.",
    "¿Dónde están mis llaves? Están en la mesa, cerca de la puerta.",
    "The old man looks at the sea and thinks of the house; 猫と犬 🙂 naïve.",
    "One, two, three, four, five: call the function with the name of the tool.",
]
CHAT = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
LONGEST = 192


@cache
def tokenizer() -> Tokenizer:
    recipe = config.Subwords(vocab_size=340)
    made = Tokenizer.train(LINES * 4, recipe, ("<|im_start|>", "<|im_end|>"))
    extra = tuple(made.backend.token_to_id(name) for name in ("<|im_start|>", "<|im_end|>"))
    return Tokenizer(made.backend, Specials.of(made.specials.roles, extra), chat_template=CHAT)


def stack(layers: int, position: config.Position | None = None) -> config.Stack:
    block = config.Block(
        attention=config.Attention(heads=4, kv_heads=2),
        feed_forward=config.Gated(hidden=40),
        norm=config.RMSNorm(),
        norm_placement="pre",
    )
    return config.Stack(layers=layers, block=block, position=position or config.Rotary(base=100.0))


@cache
def language_model() -> DecoderOnly:
    tree = config.DecoderOnly(dim=32, vocab_size=tokenizer().vocab_size, max_length=LONGEST, decoder=stack(3))
    model = DecoderOnly(tree).eval()
    redraw(model, 5)
    return model


@cache
def translation_model(seed: int = 7) -> EncoderDecoder:
    tree = config.EncoderDecoder(
        dim=32, vocab_size=tokenizer().vocab_size, max_length=64, encoder=stack(2), decoder=stack(2)
    )
    model = EncoderDecoder(tree).eval()
    redraw(model, seed)
    return model


@cache
def recurrent_model() -> Any:
    return build_recurrent(TEXTS[0].model_copy(update={"vocab_size": tokenizer().vocab_size, "max_length": LONGEST}))


def generator(backend: BackendName = "auto", *, exact: bool = False, **decoding: Any) -> Generator[Any]:
    """exact: in float64, by the modules, where rounding decides nothing."""
    model = language_model()
    if exact:
        model = DecoderOnly(model.config).double().eval()
        model.load_state_dict(language_model().state_dict())
        backend = "modules"
    return Generator(model, tokenizer(), config.Generation(**decoding), backend=decoder_backend(model, backend))


def translator(*, exact: bool = False, seed: int = 7, **decoding: Any) -> Translator:
    model = translation_model(seed)
    given = config.Decoding(**{"beam": 3, "max_ratio": 1.0, "max_extra": 4, **decoding})
    if not exact:
        return Translator(model, tokenizer(), given)
    exactly = EncoderDecoder(model.config).double().eval()
    exactly.load_state_dict(model.state_dict())
    return Translator(exactly, tokenizer(), given, backend=decoder_backend(exactly, "modules"))


@cache
def models() -> dict[str, Loaded]:
    """One of every shape and head."""
    return {
        "lm": generator(),
        "rnn": Generator(recurrent_model(), tokenizer(), config.Generation()),
        "en-es": translator(),
        "es-en": translator(seed=8, beam=1),
        "classifier": Classifier(encoder(HEADS["sentiment"]), words()),
        "tagger": Tagger(encoder(HEADS["tagger"]), words()),
        "embedder": Embedder(encoder(HEADS["minilm"]), words()),
        "filler": Filler(encoder(HEADS["bert"]), words()),
    }


@dataclass
class Running:
    """address: without a slash at its end."""

    address: str
    server: Server
    loaded: Mapping[str, Loaded] = field(default_factory=dict)

    def metric(self, name: str, model: str = "lm") -> float:
        """A figure of the server's own."""
        return self.server.metrics.registry.get_sample_value(f"sublayer_{name}", {"model": model}) or 0.0


@contextmanager
def running(
    loaded: Mapping[str, Loaded] | None = None,
    *,
    batch: BatchLimits | None = None,
    limits: RequestLimits | None = None,
    keys: Keys | None = None,
) -> Iterator[Running]:
    """A server at a free port, until the block ends."""
    metrics, own = Metrics(), models() if loaded is None else loaded
    served = [ServedModel.of(name, one, metrics, batch or BatchLimits()) for name, one in own.items()]
    server = Server(Models(served), metrics, limits or RequestLimits(), keys or Keys())
    listening = bound("127.0.0.1", 0)
    # Here a test ends the server, where on the command line a signal does.
    serving = uvicorn_server(application(server), server, 5.0)
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Running(f"http://127.0.0.1:{listening.getsockname()[1]}", server, own)
    finally:
        assert server.close(10.0), "a model's thread did not end"
        serving.should_exit = True
        thread.join()
        listening.close()
