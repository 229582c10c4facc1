"""Calls from Python for a type checker, never run: the first accepts them, the second rejects each.

`mypy` reads this file with the package: an error that it does not find is an unused `type: ignore`.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from multimodal_gen import DiffusionGenerator, GenerationResult, SamplingParams


async def right() -> None:
    generator = DiffusionGenerator.from_pretrained(Path("a"), lora_dir=Path("b"), dtype="bfloat16")
    one: GenerationResult = generator.generate("a", seed=7, progress=False, lora="style:0.5")
    some: list[GenerationResult] = generator.generate(["a", SamplingParams(prompt="b")])
    picture = Image.new("RGB", (8, 8))
    generator.generate("a", image=picture, mask=np.zeros((8, 8), bool))
    generator.generate("a", images=[picture, np.asarray(picture), b"", "a.png", Path("b.png")])
    generator.generate("a", video=one.frames, control={"name": "edges", "image": some[0].images[0]})
    generator.generate("a", image_path=[Path("a.png"), "b.png"], image=None)
    one = await generator.agenerate("a", seed=7)


async def misspelt(generator: DiffusionGenerator) -> None:
    generator.generate("a", sede=7)  # type: ignore[call-overload]
    generator.generate(["a"], hight=64)  # type: ignore[call-overload]
    generator.generate("a", width="64")  # type: ignore[call-overload]
    generator.generate("a", image=3)  # type: ignore[call-overload]
    generator.generate(["a"]).images  # type: ignore[attr-defined]  # noqa: B018
    generator.stream("a", steps=20)  # type: ignore[call-arg]
    generator.astream("a", promt="b")  # type: ignore[call-arg]
    await generator.agenerate("a", sede=7)  # type: ignore[call-overload]
    DiffusionGenerator.from_pretrained(gpus=2)  # type: ignore[call-arg]
    DiffusionGenerator.from_pretrained(dtype="float8")  # type: ignore[arg-type]
