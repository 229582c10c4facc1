"""The HTTP application: routes, and what holds for all of them."""

from __future__ import annotations

from fastapi import FastAPI

from multimodal_gen import __version__
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.runtime.entrypoints.http.errors import install_handlers
from multimodal_gen.runtime.entrypoints.http.images import image_routes
from multimodal_gen.runtime.entrypoints.http.middleware import ApiKey, BodyLimit, RequestId
from multimodal_gen.runtime.entrypoints.http.status import status_routes
from multimodal_gen.runtime.serving.jobs import Jobs
from multimodal_gen.runtime.serving.service import Service


def create_app(service: Service, jobs: Jobs, args: ServerArgs) -> FastAPI:
    """An ASGI app over what `service` makes and `jobs` keeps; it keeps no state of its own."""
    # The pages that would show the schema load scripts from elsewhere; /openapi.json stays.
    app = FastAPI(
        title="multimodal_gen",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install_handlers(app)
    # The one added last sees a request first.
    app.add_middleware(BodyLimit)
    if args.api_key is not None:
        app.add_middleware(ApiKey, key=args.api_key)
    app.add_middleware(RequestId)
    app.include_router(status_routes(service))
    app.include_router(image_routes(service))
    return app
