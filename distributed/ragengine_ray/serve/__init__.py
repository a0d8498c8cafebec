"""A Ray Serve application: `serve run ragengine_ray.serve:app bundle=BUNDLE index=INDEX`, or a config file."""

from typing import Any

from ray import serve
from ray.serve import Application

from ragengine_ray.serve.encoding import QuestionEncoder
from ragengine_ray.serve.engine import Engine
from ragengine_ray.serve.options import AppOptions, read_options

__all__ = ["app", "build_app", "build_retrieval", "retrieval"]

ENCODER = "QuestionEncoder"
ENGINE = "Engine"
_SURGE_PERCENT = 100  # an update starts a new replica before it stops an old one
_BESIDE = 16  # requests that compute nothing, such as /health, which a replica takes when its queue is full


def build_app(args: dict[str, Any]) -> Application:
    """The application that answers over HTTP, with the routes of `ragengine serve`.

    Args:
        args: ``bundle`` and ``index``, absolute paths that are the same on every machine; ``replicas``,
            ``max_replicas``, ``encoders``, ``cpus``, ``gpus``, ``retrieval``, ``model_name``,
            ``answer_timeout`` and ``start_timeout`` of this application (docs/guides/cluster.md), and the
            settings of `ragengine serve` that are no process's own, such as ``api_key_file`` and
            ``max_queue``.  Numbers may be strings.

    Raises:
        SettingsError: an argument is unknown or cannot be used.
    """
    options = read_options(args)
    encoder = _encoder(options) if options.retrieval is None and options.encoders else None
    settings, answered_at_once = options.settings, options.settings.executors
    scaling: dict[str, Any] = {"num_replicas": options.replicas}
    if options.max_replicas is not None:
        scaling = {
            "autoscaling_config": {
                "min_replicas": options.replicas,
                "initial_replicas": options.replicas,
                "max_replicas": options.max_replicas,
                "target_ongoing_requests": 2 * answered_at_once,
            }
        }
    engine = serve.deployment(serve.ingress()(Engine)).options(
        name=ENGINE,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        max_ongoing_requests=answered_at_once + settings.max_queue + _BESIDE,  # more are refused with 429
        graceful_shutdown_timeout_s=settings.drain_timeout,
        max_surge_percent=_SURGE_PERCENT,
        **scaling,
    )
    return engine.bind(options, encoder)


def build_retrieval(args: dict[str, Any]) -> Application:
    """The question encoder of one version of a model as an application of its own, without HTTP.

    An application of :func:`build_app` finds it by its name, the argument ``retrieval``; so the versions of
    an update encode with replicas of their own.  The arguments are those of :func:`build_app`.

    Raises:
        SettingsError: an argument is unknown or cannot be used.
    """
    return _encoder(read_options(args))


def app(args: dict[str, Any]) -> Application:
    """What `serve run ragengine_ray.serve:app` and ``import_path`` name: :func:`build_app`."""
    return build_app(args)


def retrieval(args: dict[str, Any]) -> Application:
    """What ``import_path: ragengine_ray.serve:retrieval`` names: :func:`build_retrieval`."""
    return build_retrieval(args)


def _encoder(options: AppOptions) -> Application:
    encoder = serve.deployment(QuestionEncoder).options(
        name=ENCODER,
        num_replicas=max(1, options.encoders),
        ray_actor_options={"num_cpus": options.settings.graph_threads},
        max_ongoing_requests=8 * options.settings.max_batch,
        max_surge_percent=_SURGE_PERCENT,
    )
    return encoder.bind(options)
