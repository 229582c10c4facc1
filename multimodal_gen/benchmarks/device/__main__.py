"""One section: `python -m multimodal_gen.benchmarks.device SECTION DEVICE SCALE`.

Writes what it finds to standard output as it finds it, see `runner`.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import version
from typing import Any, cast

import msgspec
import torch

from multimodal_gen.benchmarks.device.runner import Broken, Described, Found, Measured
from multimodal_gen.benchmarks.device.sections import DEVICE
from multimodal_gen.benchmarks.names import Scale
from multimodal_gen.configs.arguments.devices import Device
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.messages.rank_args import RankPlace
from multimodal_gen.messages.reply import WireError
from multimodal_gen.runtime.managers.rank_device import choose_device, describe_device


def main(section: str, device: str, scale: str) -> int:
    # What libraries print must not mix with what is found.
    found = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(what: Found) -> None:
        found.write(msgspec.json.encode(what) + b"\n")
        found.flush()

    try:
        if section == DEVICE:
            tell(_described(device))
            return 0
        from multimodal_gen.benchmarks.device.measures import measured

        for figure in measured(section, torch.device(device), cast(Scale, scale)):
            tell(Measured(figure))
    except MultimodalGenError as error:
        tell(Broken(WireError.of(error)))
        return 1
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        tell(Broken(WireError(code=MultimodalGenError.code, message=reason[:500])))
        return 1
    return 0


def _described(device: str) -> Described:
    """Raises InvalidRequest if there is none of this type."""
    chosen = choose_device(EngineArgs(device=cast(Device, device)), RankPlace())
    versions: dict[str, Any] = {"torch": str(torch.__version__), "diffusers": version("diffusers")}
    if chosen.type == "cuda":
        versions["cuda"] = torch.version.cuda or torch.version.hip
    return Described({"device": describe_device(chosen), **versions})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
