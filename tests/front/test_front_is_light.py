"""Contract: the front is light. No module of the front, nor any leaf, imports torch."""

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, sys

HEAVY = {"torch", "diffusers", "transformers", "accelerate"}
NOT_LIGHT = {"runtime", "benchmarks"}

def modules(name):
    yield name
    for info in pkgutil.iter_modules(getattr(sys.modules[name], "__path__", ())):
        if info.name != "__main__":
            importlib.import_module(f"{name}.{info.name}")
            yield from modules(f"{name}.{info.name}")

package = importlib.import_module("multimodal_gen")
for part in {info.name for info in pkgutil.iter_modules(package.__path__)} - NOT_LIGHT:
    importlib.import_module(f"multimodal_gen.{part}")
    for name in modules(f"multimodal_gen.{part}"):
        heavy = HEAVY & sys.modules.keys()
        if heavy:
            sys.exit(f"importing {name} pulled in {', '.join(sorted(heavy))}")
print("light")
"""


def test_importing_the_whole_front_pulls_in_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("light", 0), done.stderr


def test_public_names_that_need_no_engine_pull_in_no_torch() -> None:
    program = (
        "import sys, multimodal_gen as m\n"
        "for name in m.__all__: getattr(m, name)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("False", 0), done.stderr
