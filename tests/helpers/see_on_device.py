"""Runs tiny checkpoints on the device that only pretends.

`python tests/helpers/see_on_device.py` prints how many operations one evaluation of two requests
is, for each native family; with `--json`, everything that is seen of families, tasks and solvers,
for tests to read.
"""

from __future__ import annotations

import json
import sys
import warnings

import pretend_device


def main(arguments: list[str]) -> None:
    import torch
    from device_cases import NATIVE, extrapolation, generations, operations
    from device_solvers import solver_waits

    torch.set_num_threads(1)
    counted = {family: operations(family) for family in NATIVE}
    if arguments == ["--json"]:
        seen = {
            "operations": counted,
            "generations": generations(),
            "solvers": solver_waits(),
            "extrapolation": extrapolation(),
        }
        print(json.dumps(seen))
    else:
        for family, operations_of_it in counted.items():
            print(f"{family:20} {operations_of_it:6}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    pretend_device.install()
    main(sys.argv[1:])
