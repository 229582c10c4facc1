"""Engines and requests for tests that need real ones."""

from __future__ import annotations

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.messages.validation import requests_of
from multimodal_gen.runtime.generation import Generation
from multimodal_gen.runtime.launch.supervisor import Engine


def start_engine(**args: object) -> Engine:
    """An engine on the CPU, with the bundled model unless `args` say otherwise."""
    return Engine.start(ServerArgs(**{"device": "cpu", **args}))


def submit_to(engine: Engine, prompt: str = "a red heart", **params: object) -> Generation:
    """Submit one request; seed 1 unless `params` say otherwise."""
    model = engine.wait_ready(90)
    (req,) = requests_of(SamplingParams(prompt=prompt, **{"seed": 1, **params}), model)
    return engine.client.submit(req)
