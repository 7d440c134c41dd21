"""Figures of a running server, in the form that Prometheus reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BETWEEN_TOKENS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metrics:
    """All figures of a server. Each server has its own, so that two in one process do not add up."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry: CollectorRegistry = CollectorRegistry()

        def made(kind: Any, name: str, about: str, labels: tuple[str, ...] = ("model",), **more: Any) -> Any:
            return kind(f"sublayer_{name}", about, labels, registry=self.registry, **more)

        self.requests = made(Counter, "requests", "Requests answered.", ("path", "status"))
        self.seconds = made(Histogram, "request_seconds", "From request to answer.", ("path",), buckets=FIRST_TOKEN)
        self.queue = made(Gauge, "queue_texts", "Texts that wait.")
        self.rows = made(Gauge, "batch_rows", "Rows of the running batches.")
        self.reading = made(Gauge, "reading_prompts", "Prompts of which a part is read.")
        self.prefixes = made(Gauge, "prefix_tokens", "Tokens of prompts kept for others that begin alike.")
        self.refused = made(Counter, "refused_requests", "Requests refused because too many waited.")
        self.generated = made(Counter, "generated_tokens", "Rows stepped: a token each.")
        self.prompt = made(Counter, "prompt_tokens", "Tokens of prompts read.")
        self.shared = made(Counter, "shared_tokens", "Tokens of prompts that had been read for another.")
        self.waited = made(Histogram, "queue_seconds", "Waiting for a place in the batch.", buckets=FIRST_TOKEN)
        self.first = made(
            Histogram, "time_to_first_token_seconds", "From request to its first token.", buckets=FIRST_TOKEN
        )
        self.between = made(Histogram, "time_between_tokens_seconds", "A step of the batch.", buckets=BETWEEN_TOKENS)
        self.read = made(Counter, "texts_read", "Texts read by an encoder.")

    def of(self, model: str) -> ModelMetrics:
        """The figures of one model."""
        return ModelMetrics(self, model)

    def answered(self, path: str, status: int, seconds: float) -> None:
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def page(self) -> tuple[bytes, str]:
        """What a scrape is answered, and its media type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class ModelMetrics:
    """The figures of one model; whoever runs it tells them."""

    def __init__(self, all_of_them: Metrics, model: str) -> None:
        whole = all_of_them
        self._queue, self._rows = whole.queue.labels(model), whole.rows.labels(model)
        self._reading, self._prefixes = whole.reading.labels(model), whole.prefixes.labels(model)
        self._refused, self._generated = whole.refused.labels(model), whole.generated.labels(model)
        self._prompt, self._shared = whole.prompt.labels(model), whole.shared.labels(model)
        self._waited, self._first = whole.waited.labels(model), whole.first.labels(model)
        self._between, self._texts = whole.between.labels(model), whole.read.labels(model)

    def queue(self, texts: int) -> None:
        self._queue.set(texts)

    def batch(self, rows: int, reading: int, prefixes: int) -> None:
        self._rows.set(rows)
        self._reading.set(reading)
        self._prefixes.set(prefixes)

    def refused(self) -> None:
        self._refused.inc()

    def waited(self, seconds: float) -> None:
        self._waited.observe(seconds)

    def read(self, tokens: int) -> None:
        self._prompt.inc(tokens)

    def shared(self, tokens: int) -> None:
        self._shared.inc(tokens)

    def stepped(self, rows: int, seconds: float) -> None:
        self._generated.inc(rows)
        self._between.observe(seconds)

    def first_token(self, seconds: float) -> None:
        self._first.observe(seconds)

    def texts(self, count: int) -> None:
        self._texts.inc(count)
