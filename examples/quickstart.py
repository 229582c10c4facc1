"""One prompt, one picture, with the bundled model: no download, no GPU."""

from multimodal_gen import DiffusionGenerator

with DiffusionGenerator.from_pretrained() as generator:
    result = generator.generate("a red heart", seed=7)
    print(result.save("heart.png")[0], result.images[0].size, result.seeds, result.timings)
