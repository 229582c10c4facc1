"""Many coroutines, one generator: what is in flight at the same time shares batches."""

import asyncio

from multimodal_gen import DiffusionGenerator


async def draw(generator: DiffusionGenerator, animal: str) -> None:
    result = await generator.agenerate(f"a {animal}", seed=3)
    result.save(f"{animal}.png")
    print(animal, "shared its evaluations with up to", max(result.batch_sizes) - 1)


async def main() -> None:
    with DiffusionGenerator.from_pretrained() as generator:
        await asyncio.gather(*(draw(generator, animal) for animal in ("dog", "cat", "fox")))


asyncio.run(main())
