"""The HTTP application: routes, middleware and error handlers."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.a1111.routes import a1111_routes, as_a1111, controlnet_routes
from multimodal_gen.entrypoints.http.bodies.reading import MAX_PARSERS
from multimodal_gen.entrypoints.http.bodies.room import body_room, picture_room
from multimodal_gen.entrypoints.http.comfyui.errors import as_comfyui
from multimodal_gen.entrypoints.http.comfyui.routes.router import comfyui_routes
from multimodal_gen.entrypoints.http.hugging_face.routes import as_hugging_face, hugging_face_routes
from multimodal_gen.entrypoints.http.jobs.files import file_routes
from multimodal_gen.entrypoints.http.jobs.routes import job_routes
from multimodal_gen.entrypoints.http.openai.edits import edit_routes
from multimodal_gen.entrypoints.http.openai.image_jobs import image_job_routes
from multimodal_gen.entrypoints.http.openai.image_maker import ImageMaker
from multimodal_gen.entrypoints.http.openai.images import image_routes
from multimodal_gen.entrypoints.http.openai.video_maker import VideoMaker
from multimodal_gen.entrypoints.http.openai.videos import video_routes
from multimodal_gen.entrypoints.http.openai.videos_refused import refused_video_routes
from multimodal_gen.entrypoints.http.ops.docs import sections
from multimodal_gen.entrypoints.http.ops.docs.examples import EXAMPLES
from multimodal_gen.entrypoints.http.ops.docs.routes import docs_routes
from multimodal_gen.entrypoints.http.ops.metrics import (
    Reports,
    fleet_state,
    metrics_routes,
)
from multimodal_gen.entrypoints.http.ops.models import model_routes
from multimodal_gen.entrypoints.http.ops.operator.recent_failures import RecentFailures
from multimodal_gen.entrypoints.http.ops.operator.routes import operator_routes
from multimodal_gen.entrypoints.http.ops.operator.server_state import ServerState
from multimodal_gen.entrypoints.http.ops.playground import playground_routes
from multimodal_gen.entrypoints.http.ops.prompt_help import prompt_help_routes
from multimodal_gen.entrypoints.http.ops.status import status_routes
from multimodal_gen.entrypoints.http.transport.errors import install_handlers
from multimodal_gen.entrypoints.http.transport.fetch import MediaFetcher, MediaHosts
from multimodal_gen.entrypoints.http.transport.head import HeadAsGet
from multimodal_gen.entrypoints.http.transport.key_ring import KeyRing
from multimodal_gen.entrypoints.http.transport.keys import Keys
from multimodal_gen.entrypoints.http.transport.middleware import (
    BodyLimit,
    Drained,
    Observed,
    PictureRoom,
)
from multimodal_gen.observability.metrics import Metrics
from multimodal_gen.observability.tracing import tracing_from_environment
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.service import Service
from multimodal_gen.version import __version__


def create_app(service: Service, jobs: Jobs, args: ServerArgs) -> FastAPI:
    """Create an ASGI app on top of `service` and `jobs`; it has no state of its own."""
    # FastAPI's own pages load scripts from other hosts; see docs_routes.
    app = FastAPI(
        title="multimodal_gen",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    ring = KeyRing(args)
    service.grant(ring.shares)
    metrics, tracing = Metrics(fleet_state(service, jobs)), tracing_from_environment()
    failures = RecentFailures()
    service.observers += [Reports(metrics, tracing), failures]
    app.state.media = MediaFetcher(MediaHosts(args.allowed_media_hosts), args.max_body_bytes)
    app.state.parsers = asyncio.Semaphore(MAX_PARSERS)
    shapes = {"/sdapi/": as_a1111, "/hf": as_hugging_face, "/api/": as_comfyui}
    install_handlers(app, shapes, EXAMPLES.keys())
    # The last one added handles a request first.
    app.add_middleware(HeadAsGet)
    pictures = picture_room(args.max_input_pixels, several_owners=ring.guards)
    app.add_middleware(PictureRoom, room=pictures)
    bodies = body_room(args.max_body_bytes, several_owners=ring.guards)
    app.add_middleware(BodyLimit, limit=args.max_body_bytes, room=bodies)
    app.add_middleware(Keys, ring=ring, origins=args.allowed_origins)
    app.add_middleware(Drained, most=2 * args.max_body_bytes)
    if args.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=args.allowed_origins,
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=("*",),
        )
    app.add_middleware(Observed, metrics=metrics, tracing=tracing)
    state = ServerState(service, jobs, ring, metrics.keys, failures, args.max_queue_size)
    has_keys = ring.guards or args.admin_key is not None
    maker = ImageMaker(service, jobs, args.max_input_pixels)
    videos = VideoMaker(service, jobs, args.max_input_pixels)
    app.include_router(docs_routes(app, needs_key=ring.guards))
    # A path belongs to the first route that it fits.
    for section, routes in (
        (sections.OPERATION, status_routes(service, jobs, args)),
        (sections.MODELS, model_routes(service)),
        (sections.MODELS, prompt_help_routes(service)),
        (sections.OPERATION, metrics_routes(metrics, ring)),
        (sections.OPERATION, operator_routes(state, has_keys=has_keys)),
        (sections.IMAGES, image_routes(maker)),
        (sections.IMAGES, edit_routes(maker, args.max_input_pixels)),
        (sections.HUGGING_FACE, hugging_face_routes(maker, args.max_input_pixels)),
        (sections.A1111, a1111_routes(maker, args)),
        (sections.A1111, controlnet_routes(service)),
        (sections.COMFYUI, comfyui_routes(service, jobs, args)),
        (sections.JOBS, image_job_routes(jobs)),
        (sections.JOBS, file_routes(jobs.results)),
        (sections.VIDEOS, video_routes(videos)),
        (sections.VIDEOS, refused_video_routes(videos)),
        (sections.JOBS, job_routes(service, jobs)),
    ):
        app.include_router(routes, tags=[section])
    app.include_router(playground_routes(service, ring))
    return app
