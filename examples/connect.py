"""Use the engine of another process on this machine: python connect.py ADDRESS

ADDRESS is what `generator.address` says there. Both share the model and its batches.
"""

import sys

from multimodal_gen import DiffusionGenerator

with DiffusionGenerator.connect(sys.argv[1]) as generator:
    print(generator.model.name, generator.model.device)
    generator.generate("a dog", seed=7).save("dog.png")
