"""The server of `sublayer serve` as a deployment of Ray Serve: the same application, in as many replicas as wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sublayer.cluster.connection import required

if TYPE_CHECKING:
    from sublayer import config


def deployment(
    models: str | Sequence[str],
    *,
    replicas: int = 1,
    cpus: int = 1,
    device: str = "cpu",
    weights: config.Weights | None = None,
    names: Sequence[str] = (),
    keys: str | Path | None = None,
) -> Any:
    """Return an application for `serve.run`. Each replica has all models, and answers as `sublayer serve` does.

    Args:
        models: folders, or NAME=FOLDER, as `sublayer serve` takes them; every machine must see them.
        cpus: threads of a replica. device: "cuda" takes a GPU for each. names: host names, besides "localhost" and
            addresses, by which it may be asked. keys: a file of API keys, one a line.

    Raises:
        ConfigError: Ray is not installed. SublayerError: a model has no name, or there are no keys in the file.
    """
    from sublayer.hub.location import find
    from sublayer.serving.keys import Keys
    from sublayer.serving.limits import BatchLimits
    from sublayer.serving.served import parse

    serve = required("ray.serve")
    named = [(name, find(path).resolve()) for name, path in parse([models] if isinstance(models, str) else models)]
    let_in, known = Keys() if keys is None else Keys.read(Path(keys)), frozenset(name.lower() for name in names)

    def application() -> Any:
        """Made in each replica: a model's threads do not travel."""
        from sublayer.fast.engine.threads import use_threads
        from sublayer.serving.app import application
        from sublayer.serving.metrics import Metrics
        from sublayer.serving.served import load_models
        from sublayer.serving.server import Server

        use_threads(cpus)
        metrics = Metrics()
        models = load_models(named, metrics, BatchLimits(), device, weights)
        return application(Server(models, metrics, keys=let_in), names=known)

    return serve.deployment(
        serve.ingress(application)(),
        name="sublayer",
        num_replicas=replicas,
        # As many as the server's own queue: the requests that wait are decoded together.
        max_ongoing_requests=BatchLimits().waiting,
        ray_actor_options={"num_cpus": cpus, "num_gpus": 0 if device == "cpu" else 1},
    ).bind()
