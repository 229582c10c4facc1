"""Arguments of an engine: the model, the device and how requests share it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from multimodal_gen.configs.arguments.argument_group import ArgumentGroup
from multimodal_gen.configs.arguments.devices import Device, refuse_other_devices
from multimodal_gen.configs.attention import AttentionBackend
from multimodal_gen.configs.declarations.short_repr import short_repr
from multimodal_gen.configs.declarations.similar_names import suggesting_names
from multimodal_gen.configs.quantization import Quantization
from multimodal_gen.errors import InvalidRequest

DType = Literal["auto", "float32", "bfloat16", "float16"]
LogFormat = Literal["text", "json"]
CompileChoice = Literal["auto", "off", "blocks"]
ResidencyChoice = Literal["auto", "device", "host", "streamed"]
"""device: all weights on it; host: components there only in the phases that need them; streamed:
block by block in each evaluation."""

LONGEST_STEP_S = 86400
MOST_MEMORY_GB = 1_000_000
_SIZES = ("device_memory_gb", "max_lora_gb")


@suggesting_names
@dataclass(frozen=True, kw_only=True)
class EngineArgs(ArgumentGroup):
    """Arguments of an engine, for `generate`, `bench`, `serve` and DiffusionGenerator."""

    model_path: str | None = None
    """Folder, hub name or single weight file. Default: the bundled model."""
    base_model_path: str | None = None
    """Checkpoint (folder or hub name) that completes a single file."""
    component: tuple[str, ...] = ()
    """NAME=FILE: a weight file of one component (vae=ae.sft). Repeatable."""
    revision: str | None = None
    """Branch, tag or commit of --model-path on the hub."""
    device: Device = "auto"
    """auto: a GPU if any."""
    dtype: DType = "auto"
    """auto: bfloat16 on cuda, float32 on cpu."""
    device_memory_gb: float | None = None
    """GB to use of each GPU, a quarter to decode. Default: what is free."""
    residency: ResidencyChoice = "auto"
    """Where weights are while idle and at work; auto: the fastest way that fits."""
    quantization: Quantization | None = None
    """Quantise weights while loading."""
    num_gpus: int = 1
    """Ranks (processes) that share each step; also on CPU."""
    ulysses_degree: int | None = None
    """Ranks that share a sequence by heads. Default: picked for speed."""
    ring_degree: int | None = None
    """Ranks that pass on keys in a ring. Default: picked for speed."""
    tensor_degree: int | None = None
    """Ranks that share each layer's weights. Default: picked for speed."""
    enable_cfg_parallel: bool = False
    """Split the rows of a batch over two groups of ranks."""
    compile: CompileChoice = "auto"
    """Run blocks as compiled graphs; auto: servers on GPUs do."""
    attention_backend: AttentionBackend = "auto"
    """auto: the fastest."""
    lora_dir: str | None = None
    """Folder of LoRAs (safetensors files or folders) for requests to use."""
    control_dir: str | None = None
    """Folder of controls (ControlNets and the like) for requests to use."""
    max_loaded_loras: int = 8
    """Maximum number of LoRAs and controls kept in memory."""
    max_lora_gb: float | None = None
    """GB of each rank's memory for these. Default: half of what is free."""
    upscaler_dir: str | None = None
    """Folder of models that enlarge results (safetensors files)."""
    prompt_enhancer: str | None = None
    """Folder of a language model for requests with enhance_prompt."""
    batching_max_size: int = 16
    """Maximum number of requests per batch."""
    max_queue_size: int = 256
    """Maximum number of queued and running requests."""
    step_timeout: float = 300.0
    """Seconds until a silent rank counts as dead."""
    log_format: LogFormat = "text"
    """Format of logs on stderr."""

    def __post_init__(self) -> None:
        refuse_other_devices(self.device)
        super().__post_init__()
        self.require_at_least_1(
            "num_gpus", "batching_max_size", "max_queue_size", "max_loaded_loras"
        )
        allowed = f"must be more than 0 and at most {MOST_MEMORY_GB} (GB)"
        self.require(allowed, lambda size: 0 < size <= MOST_MEMORY_GB, *_SIZES)
        self.require("must be a folder", os.path.isdir, "prompt_enhancer")
        self.require("must be a folder", os.path.isdir, "lora_dir", "control_dir", "upscaler_dir")
        self.component_files  # noqa: B018 checks them
        allowed = f"must be more than 0 and at most {LONGEST_STEP_S} seconds"
        self.require(allowed, lambda seconds: 0 < seconds <= LONGEST_STEP_S, "step_timeout")
        self._check_ranks()

    def __repr__(self) -> str:
        return short_repr(self)

    @property
    def component_files(self) -> dict[str, str]:
        """Weight files by component. Raises InvalidRequest."""
        files: dict[str, str] = {}
        for given in self.component:
            name, mark, file = given.partition("=")
            if not (name and mark and file) or name in files:
                allowed = "must be NAME=FILE, each NAME once, such as vae=ae.safetensors"
                raise InvalidRequest("component", given, allowed)
            files[name] = file
        return files

    def _check_ranks(self) -> None:
        left, told = self.num_gpus, f"num_gpus={self.num_gpus}"
        shared = {}
        for name in ("ulysses_degree", "ring_degree", "tensor_degree"):
            if (degree := getattr(self, name)) is None:
                continue
            if degree < 1 or left % degree:
                raise InvalidRequest(name, degree, f"must be at least 1 and divide {told}")
            if degree > 1:
                left, told = left // degree, f"{told} / {name}={degree}"
                shared[name] = degree
        if not self.enable_cfg_parallel or left % 2 == 0:
            return
        if self.num_gpus % 2:
            raise InvalidRequest("num_gpus", self.num_gpus, "must be even with enable_cfg_parallel")
        name, degree = next(iter(shared.items()))
        allowed = f"leaves no ranks for enable_cfg_parallel: {told} must be even"
        raise InvalidRequest(name, degree, allowed)
