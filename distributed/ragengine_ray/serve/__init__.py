"""A Ray Serve application: `serve run ragengine_ray.serve:app bundle=BUNDLE index=INDEX`."""

from typing import Any

from ray import serve
from ray.serve import Application

from ragengine.retrieval.sharding.manifest import is_sharded
from ragengine_ray.serve.calls import ENCODER, shard_name
from ragengine_ray.serve.encoding import QuestionEncoder
from ragengine_ray.serve.engine import Engine
from ragengine_ray.serve.options import AppOptions, read_options
from ragengine_ray.serve.shards import ShardServer, shard_numbers
from ragengine_serve.errors import SettingsError

__all__ = ["app", "build_app", "build_retrieval", "retrieval"]

ENGINE = "Engine"
_SURGE_PERCENT = 100  # an update starts a new replica before it stops an old one
_ASKED_AT_ONCE = 64  # calls of engines that an encoder or a shard takes; it computes some of them together
_BESIDE = 16  # requests that compute nothing, such as /health, which a replica takes when its queue is full


def build_app(args: dict[str, Any]) -> Application:
    """The application that answers over HTTP, with the routes of `ragengine serve`.

    Args:
        args: ``bundle`` and ``index``, absolute paths that are the same on every machine; ``replicas``,
            ``max_replicas``, ``encoders``, ``shard_replicas``, ``cpus``, ``gpus``, ``retrieval``,
            ``model_name``, ``answer_timeout`` and ``start_timeout`` (docs/guides/cluster.md), and those
            settings of `ragengine serve` that are no process's own, such as ``api_key_file`` and
            ``max_queue``.  Numbers may be strings.

    Raises:
        SettingsError: an argument is unknown or cannot be used.
    """
    options = read_options(args)
    bound = _parts(options) if options.retrieval is None else {}
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
    return engine.bind(options, bound)


def build_retrieval(args: dict[str, Any]) -> Application:
    """Question encoder and shards of one version of a model as an application of its own, without HTTP.

    An application of :func:`build_app` finds it by its name, the argument ``retrieval``; so the versions of
    an update have replicas of their own.  The arguments are those of :func:`build_app`.

    Raises:
        SettingsError: an argument is unknown or cannot be used.
    """
    options = read_options(args)
    if not options.encoders:
        raise SettingsError("encoders is 0; an application for retrieval needs at least 1.")
    return _parts(options)[ENCODER]


def app(args: dict[str, Any]) -> Application:
    """What `serve run ragengine_ray.serve:app` and ``import_path`` name: :func:`build_app`."""
    return build_app(args)


def retrieval(args: dict[str, Any]) -> Application:
    """What ``import_path: ragengine_ray.serve:retrieval`` names: :func:`build_retrieval`."""
    return build_retrieval(args)


def _parts(options: AppOptions) -> dict[str, Application]:
    """The deployments that engines ask, by name; the encoder brings the others with it."""
    settings, folders = options.settings, options.settings.models[0]
    parts: dict[str, Application] = {}
    if is_sharded(folders.index):
        for number in shard_numbers(folders):
            shard = serve.deployment(ShardServer).options(
                name=shard_name(number),
                num_replicas=options.shard_replicas,
                ray_actor_options={"num_cpus": 1},
                max_ongoing_requests=_ASKED_AT_ONCE,
                max_surge_percent=_SURGE_PERCENT,
            )
            parts[shard_name(number)] = shard.bind(options, number)
    if options.encoders:
        encoder = serve.deployment(QuestionEncoder).options(
            name=ENCODER,
            num_replicas=options.encoders,
            ray_actor_options={"num_cpus": settings.graph_threads},
            max_ongoing_requests=_ASKED_AT_ONCE,
            max_surge_percent=_SURGE_PERCENT,
        )
        parts[ENCODER] = encoder.bind(options, *parts.values())
    return parts
