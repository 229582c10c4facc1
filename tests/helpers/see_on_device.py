"""Runs tiny checkpoints on the device that only pretends.

`python tests/helpers/see_on_device.py` prints how many operations one evaluation of two requests
is, for each native family; with `--json operations` or `--json generations`, tests read it.
"""

from __future__ import annotations

import json
import sys
import warnings

import pretend_device


def main(arguments: list[str]) -> None:
    import torch
    from device_cases import NATIVE, generations, operations

    torch.set_num_threads(1)
    if arguments == ["--json", "generations"]:
        print(json.dumps(generations()))
    elif arguments == ["--json", "operations"]:
        print(json.dumps({family: operations(family) for family in NATIVE}))
    else:
        for family in NATIVE:
            print(f"{family:20} {operations(family):6}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    pretend_device.install()
    main(sys.argv[1:])
