"""Memory that the models of a server need, and that there is."""

from __future__ import annotations

import logging
from dataclasses import replace

from multimodal_gen.checkpoints.identify import component_in_file, identify
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.entrypoints.cli.checkpoint.memory_forecast import forecast, whole_components
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.launch.device_memory import DeviceMemory, device_at_hand, gpus
from multimodal_gen.launch.device_share import visible_devices
from multimodal_gen.launch.model_path import BUNDLED_MODEL, locate

log = logging.getLogger(__name__)


def memory_of(args: EngineArgs) -> int:
    """Bytes of weights of all ranks of an engine, estimated from the headers of its files; 0 if
    they are not on this machine yet."""
    device = device_at_hand() or DeviceMemory("the CPU", is_cpu=True, free=0)
    if args.device == "cpu":
        device = replace(device, is_cpu=True)
    path = BUNDLED_MODEL if args.model_path is None else args.model_path
    try:
        found = identify(locate(str(path), args.revision))
        if found.family is None:
            return 0
        components, _ = whole_components(found)
        classes = {each.name: (each.class_name,) for each in components}
        own = {
            name: component_in_file(name, locate(file), classes)
            for name, file in args.component_files.items()
        }
        used = {**{each.name: each for each in components}, **own}
        return args.num_gpus * sum(forecast(found.family, used.values(), device).kept.values())
    except (MultimodalGenError, OSError) as error:
        log.warning("the memory that %s needs can't be estimated: %s", path, error)
        return 0


def free_memory() -> int | None:
    """Bytes that are free on all GPUs that may be used, or on the host if there is none; None: not
    known."""
    if found := gpus():
        names = visible_devices()
        visible = [each for number, each in enumerate(found) if str(number) in names]
        return sum(each.free for each in visible or found)
    device = device_at_hand()
    return None if device is None else device.free
