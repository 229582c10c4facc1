"""A generator in a forked process: gunicorn's preload, Celery, multiprocessing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from places import ROOT

FORK = """
import asyncio, json, os, sys
from multimodal_gen import DiffusionGenerator

generator = DiffusionGenerator.from_pretrained(device="cpu")
said = {}


def attempt(name, call):
    try:
        call()
        said[name] = "made"
    except Exception as error:
        said[name] = f"{type(error).__name__}: {error}"


async def follow():
    async for _ in generator.astream("a pizza"):
        pass


if os.fork() == 0:
    attempt("generate", lambda: generator.generate("a pizza"))
    attempt("list", lambda: generator.generate(["a pizza", "a cat"]))
    attempt("agenerate", lambda: asyncio.run(generator.agenerate("a pizza")))
    attempt("stream", lambda: list(generator.stream("a pizza")))
    attempt("astream", lambda: asyncio.run(follow()))
    with DiffusionGenerator.connect(generator.address) as own:
        attempt("connected", lambda: own.generate("a pizza", num_inference_steps=1))
    generator.close()
    print(json.dumps(said), flush=True)
    sys.exit()  # runs what is registered for the exit
os.wait()
result = generator.generate("a pizza", num_inference_steps=1)
print(json.dumps(len(result.images)), flush=True)
"""


@pytest.fixture(scope="module")
def said() -> tuple[dict[str, str], int]:
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    child, parent = done.stdout.splitlines()
    return json.loads(child), json.loads(parent)


@pytest.mark.parametrize("way", ["generate", "list", "agenerate", "stream", "astream"])
def test_a_forked_process_is_told_at_once_how_to_get_its_own(
    said: tuple[dict[str, str], int], way: str
) -> None:
    assert said[0][way].startswith("EngineNotReady: this generator belongs to process ")
    assert "DiffusionGenerator.connect(address)" in said[0][way]


def test_a_forked_process_can_connect(said: tuple[dict[str, str], int]) -> None:
    assert said[0]["connected"] == "made"


def test_the_end_of_a_forked_process_leaves_the_engine(said: tuple[dict[str, str], int]) -> None:
    assert said[1] == 1
