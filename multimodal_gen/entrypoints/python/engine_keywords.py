"""The keywords of `from_pretrained`, written by configs/write_types.py."""

from __future__ import annotations

from typing import Literal, TypedDict

from multimodal_gen.configs.user_path import UserPath


class EngineKeywords(TypedDict, total=False):
    """The fields of EngineArgs except the path of the model."""

    base_model_path: UserPath | None
    """Checkpoint (folder or hub name) that completes a single file."""
    component: tuple[str, ...]
    """NAME=FILE: a weight file of one component (vae=ae.sft). Repeatable."""
    revision: str | None
    """Branch, tag or commit of --model-path on the hub."""
    device: Literal["auto", "cpu", "cuda"]
    """auto: a GPU if any."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    """auto: bfloat16 on cuda, float32 on cpu."""
    device_memory_gb: float | None
    """GB to use of each GPU, a quarter to decode. Default: what is free."""
    residency: Literal["auto", "device", "host", "streamed"]
    """Where weights are while idle and at work; auto: the fastest way that fits."""
    quantization: Literal["int8", "fp8", "nf4"] | None
    """Quantise weights while loading."""
    num_gpus: int
    """Ranks (processes) that share each step; also on CPU."""
    ulysses_degree: int | None
    """Ranks that share a sequence by heads. Default: picked for speed."""
    ring_degree: int | None
    """Ranks that pass on keys in a ring. Default: picked for speed."""
    tensor_degree: int | None
    """Ranks that share each layer's weights. Default: picked for speed."""
    enable_cfg_parallel: bool
    """Split the rows of a batch over two groups of ranks."""
    compile: Literal["auto", "off", "blocks"]
    """Run blocks as compiled graphs; auto: servers on GPUs do."""
    attention_backend: Literal["auto", "cudnn", "efficient", "fa3", "flash", "math", "sdpa"]
    """auto: the fastest."""
    lora_dir: UserPath | None
    """Folder of LoRAs (safetensors files or folders) for requests to use."""
    control_dir: UserPath | None
    """Folder of controls (ControlNets and the like) for requests to use."""
    max_loaded_loras: int
    """Maximum number of LoRAs and controls kept in memory."""
    max_lora_gb: float | None
    """GB of each rank's memory for these. Default: half of what is free."""
    upscaler_dir: UserPath | None
    """Folder of models that enlarge results (safetensors files)."""
    prompt_enhancer: UserPath | None
    """Folder of a language model for requests with enhance_prompt."""
    batching_max_size: int
    """Maximum number of requests per batch."""
    max_queue_size: int
    """Maximum number of queued and running requests."""
    step_timeout: float
    """Seconds until a silent rank counts as dead."""
    log_format: Literal["text", "json"]
    """Format of logs on stderr."""
