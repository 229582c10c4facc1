"""Checks of what a request needs besides its parameters: folders of adapters, and a device."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from multimodal_gen.checkpoints.adapter_folder import AdapterFolder
from multimodal_gen.checkpoints.control.folder import ControlFolder
from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.checkpoints.lora.folder import LoraFolder
from multimodal_gen.checkpoints.upscaler.folder import UpscalerFolder
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.launch.device_memory import gpus
from multimodal_gen.messages.model_info import ModelInfo

GPU_FILES = ("/dev/kfd", "/dev/dxg", "/dev/nvidia0", "/dev/nvidiactl")
"""Files of GPUs, of which not every kind has a program that lists them."""


def check_adapters(
    requests: Sequence[SamplingParams], args: EngineArgs, model: ModelInfo | None
) -> None:
    """Raise InvalidRequest for a LoRA, control or upscaler that is in no folder, or damaged."""
    for params in requests:
        for folder, root, name in _named(params, args):
            if root is not None:
                _check_file(folder(user_path(root)), name)
            elif folder is not ControlFolder or model is not None:  # it may have its own
                _refuse_without_folder(folder, name)


def _named(
    params: SamplingParams, args: EngineArgs
) -> Iterator[tuple[type[AdapterFolder], str | None, str]]:
    yield from ((LoraFolder, args.lora_dir, choice.name) for choice in params.lora)
    yield from ((ControlFolder, args.control_dir, choice.name) for choice in params.control)
    if params.upscale is not None and params.upscale.model is not None:
        yield UpscalerFolder, args.upscaler_dir, params.upscale.model


def _check_file(folder: AdapterFolder, name: str) -> None:
    found = folder.find(name)
    try:
        read_header(found.weights)
    except InvalidCheckpoint as error:
        raise InvalidRequest(folder.field, name, error.message) from error


def _refuse_without_folder(folder: type[AdapterFolder], name: str) -> None:
    option = "--upscaler-dir" if folder is UpscalerFolder else f"--{folder.field}-dir"
    path = Path(name)
    if os.path.exists(path):  # False for a name that no file can have
        allowed = f"is named without its folder: {option} {path.parent}, and {path.stem} as name"
    else:
        allowed = f"needs {option}, the folder that it is in"
    raise InvalidRequest(folder.field, name, allowed)


def check_device(args: EngineArgs) -> None:
    """Raise InvalidRequest for a GPU that is not here."""
    if args.device != "cuda":
        return
    found = len(gpus())
    if not found and not any(Path(each).exists() for each in GPU_FILES):
        raise InvalidRequest("device", "cuda", "no GPU is found on this machine; use cpu or auto")
    if 0 < found < args.num_gpus:
        raise InvalidRequest("num_gpus", args.num_gpus, f"this machine has {found}")
