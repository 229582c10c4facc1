"""Use the engine of another process on this machine: python connect.py [ADDRESS]

ADDRESS is what `generator.address` says there. Both share the model and its batches. Without
ADDRESS, this process starts an engine, and a second process that connects to it.
"""

import subprocess
import sys

from multimodal_gen import DiffusionGenerator

if len(sys.argv) > 1:
    with DiffusionGenerator.connect(sys.argv[1]) as generator:
        print(generator.model.name, generator.model.device)
        generator.generate("a dog", seed=7).save("dog.png")
else:
    with DiffusionGenerator.from_pretrained() as generator:
        print("the engine's address is", generator.address)
        subprocess.run([sys.executable, __file__, generator.address], check=True)
