"""Shared fixtures. The environment is set here, before anything imports torch."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from multimodal_gen.launch.private_folder import PrivateFolder

if TYPE_CHECKING:
    import openai
    from postgres_server import Database

    from multimodal_gen.launch.engine_process import EngineProcess
    from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

_cache = PrivateFolder(longest_name=0)
"""For all that tests would keep elsewhere. If they are killed, the next run removes it."""
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.update(
    OMP_NUM_THREADS=str(max(1, 2 // _workers)),
    OMP_WAIT_POLICY="PASSIVE",
    HF_HUB_OFFLINE="1",
    XDG_CACHE_HOME=str(_cache.path),
    XDG_DATA_HOME=str(_cache.path),
    TORCHDYNAMO_DISABLE="1",  # Engines compile nothing; tests that do say so.
)

Checkpoints = Callable[..., Path]
pytest_plugins = ["browsers"]
"""Fixtures of tests in Chromium."""


def pytest_unconfigure() -> None:
    _cache.remove()


@pytest.fixture(scope="session", autouse=True)
def planted_faults() -> Iterator[None]:
    """Let the ranks of this process hear which faults they are to have; see helpers/faults."""
    from multimodal_gen.launch import child_environment

    with pytest.MonkeyPatch.context() as patch:
        known = " RANK_FAULTS RANK_THAT_FAILS"
        patch.setattr(child_environment, "PASSED", child_environment.PASSED + known)
        yield


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """Undo what a test that runs `serve` in this process does to the loggers: its handlers write
    to a stream that ends with the test, and `caplog` hears nothing of a logger that does not
    propagate."""
    from multimodal_gen.observability.logging import ACCESS, LOGGERS

    loggers = [logging.getLogger(name) for name in (*LOGGERS, ACCESS)]
    before = [(each.handlers, each.propagate, each.level) for each in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """`checkpoints(name, **options)`: the folder of a tiny checkpoint, built once a session.

    Names and options are those of `tiny_checkpoints.build`. Don't write into the folder.
    """
    from tiny_checkpoints import build

    built: dict[str, Path] = {}

    def get(name: str, **options: object) -> Path:
        key = repr((name, sorted(options.items())))
        if key not in built:
            built[key] = build(name, tmp_path_factory.mktemp("checkpoint") / name, **options)
        return built[key]

    return get


@pytest.fixture(scope="session")
def bundled_model() -> Path:
    """The folder of the bundled model."""
    import multimodal_gen

    return Path(multimodal_gen.__file__).parent / "assets" / "bundled_model"


@pytest.fixture(scope="session")
def unlimited_model(bundled_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundled model that draws any size, if not well."""
    copy = shutil.copytree(bundled_model, tmp_path_factory.mktemp("unlimited") / bundled_model.name)
    defaults = copy / "generation_defaults.json"
    stated = json.loads(defaults.read_text())
    del stated["limits"]
    defaults.write_text(json.dumps(stated))
    return copy


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> ComposedPipeline:
    """The pipeline of the checkpoint that the module calls `folder`, without an engine."""
    from engineless import load

    return load(folder)


@pytest.fixture(scope="session")
def engine() -> Iterator[EngineProcess]:
    """One rank with the bundled model, shared by all tests that don't end it."""
    from engines import start_engine

    with start_engine(max_queue_size=32) as engine:
        yield engine


@pytest.fixture(scope="session")
def url(engine: EngineProcess) -> Iterator[str]:
    """A server over the shared engine."""
    from http_serving import app_over, serving

    engine.wait_ready(300)
    with serving(app_over(engine.client, max_queue_size=32)) as url:
        yield url


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[openai.OpenAI]:
    """The openai package, pointed at that server."""
    from openai_client import client_of

    with client_of(url) as client:
        yield client


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    """A real PostgreSQL, of which each test gets a schema."""
    from postgres_server import running_database

    with running_database() as server:
        yield server
