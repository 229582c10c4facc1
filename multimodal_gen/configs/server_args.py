"""How an engine and its front are run: flags, YAML keys and environment variables alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import msgspec

from multimodal_gen.configs.attention import AttentionBackend
from multimodal_gen.errors import InvalidRequest

Device = Literal["auto", "cpu", "cuda"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
LogFormat = Literal["text", "json"]

LONGEST_STEP_S = 86400
_AT_LEAST_1 = (
    "num_gpus",
    "batching_max_size",
    "max_queue_size",
    "max_loaded_loras",
    "max_body_bytes",
    "max_input_pixels",
    "max_pixels",
    "max_frames",
    "max_steps",
)


@dataclass(frozen=True, kw_only=True)
class ServerArgs:
    """Arguments of `serve`, of `generate` and of DiffusionGenerator."""

    model_path: str | None = None
    """Folder or hub name of a checkpoint in diffusers layout, or a single .safetensors or .gguf
    file; unset: the bundled model."""
    base_model_path: str | None = None
    """Of a single file: folder or hub name of the checkpoint that has what the file has not."""
    revision: str | None = None
    """Branch, tag or commit of model_path on the hub."""
    device: Device = "auto"
    """cuda where there is one, else cpu."""
    dtype: DType = "auto"
    """auto is bfloat16 on cuda and float32 on a cpu."""
    num_gpus: int = 1
    """Ranks: processes that share each step; on a cpu too."""
    ulysses_degree: int | None = None
    """Ranks that share one sequence; unset: as many as the model and num_gpus allow."""
    enable_cfg_parallel: bool = False
    """Share the rows of a batch over two halves of the ranks, or over more with ulysses_degree."""
    attention_backend: AttentionBackend = "auto"
    """auto picks what is fastest for the device."""
    lora_dir: str | None = None
    """Folder of LoRAs that requests may name: safetensors files, or folders with one."""
    max_loaded_loras: int = 8
    """LoRAs in memory at most; the one that was used least recently makes room."""
    batching_max_size: int = 16
    """Requests that share one evaluation at most."""
    max_queue_size: int = 256
    """Requests accepted and not ended at most; the next is told when to try again."""
    step_timeout: float = 300.0
    """Seconds without a word from a rank after which the engine counts as dead."""
    host: str = "127.0.0.1"
    """Address to listen on; other than loopback only with an api_key or an api_keys_file."""
    port: int = 30000
    """Port to listen on; 0 takes a free one."""
    api_key: str | None = None
    """Key that HTTP clients must send as a bearer token."""
    api_keys_file: str | None = None
    """YAML file of several keys, `name: key` or `name: {key: …, max_concurrent: 2}`; read again
    when it changes."""
    admin_key: str | None = None
    """Key that what changes the server asks for; it opens the rest as well."""
    max_body_bytes: int = 64 * 2**20
    """Bytes of an HTTP request's body at most."""
    max_input_pixels: int = 50_000_000
    """Pixels of a picture that a client sends at most."""
    max_pixels: int | None = None
    """Pixels of a picture, or of a video's frame, that is made at most; unset: the model's."""
    max_frames: int | None = None
    """Frames of a video at most; unset: the model's."""
    max_steps: int | None = None
    """num_inference_steps at most; unset: the model's."""
    max_request_s: float | None = None
    """Seconds that `serve` gives a request from acceptance at most."""
    client_timeout: float = 20.0
    """Seconds that a client has to send a request's headers, and may fall silent in its body."""
    allowed_media_hosts: tuple[str, ...] = ()
    """Hosts that URLs in requests may name: example.com, *.example.com, and for addresses that are
    not public their network as well: 10.0.0.0/8."""
    log_format: LogFormat = "text"
    """Of the log on standard error."""
    data_dir: str | None = None
    """Folder of what `serve` keeps: jobs and their results; unset: one for each port in the user's
    data folder, and with port 0 a temporary one."""
    drain_timeout: float = 30.0
    """Seconds that `serve`, when told to stop, gives what runs to end."""
    result_ttl: float = 86400.0
    """Seconds that results are kept."""
    result_quota_gb: float = 20.0
    """Gigabytes that results may take on disk; the oldest go first."""

    webhook_url: str | None = None
    """Where `serve` posts that a job has ended, signed with webhook_secret: video.completed,
    video.failed, image.completed, image.failed."""
    webhook_secret: str | None = None
    """whsec_ and then base64."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(ServerArgs).items():
            try:
                msgspec.convert(getattr(self, name), kind)
            except msgspec.ValidationError as error:
                choices = ", ".join(get_args(kind)) if get_origin(kind) is Literal else ""
                allowed = f"must be one of {choices}" if choices else str(error)
                raise InvalidRequest(name, getattr(self, name), allowed) from error
        for name in _AT_LEAST_1:
            if (value := getattr(self, name)) is not None and value < 1:
                raise InvalidRequest(name, value, "must be at least 1")
        for name in ("max_request_s", "client_timeout"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise InvalidRequest(name, value, "must be more than 0 seconds")
        if self.lora_dir is not None and not Path(self.lora_dir).is_dir():
            raise InvalidRequest("lora_dir", self.lora_dir, "must be a folder")
        if not 0 < self.step_timeout <= LONGEST_STEP_S:
            allowed = f"must be more than 0 and at most {LONGEST_STEP_S} seconds"
            raise InvalidRequest("step_timeout", self.step_timeout, allowed)
        for name in ("drain_timeout", "result_ttl", "result_quota_gb"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidRequest(name, getattr(self, name), "must be a number from 0")
        if not 0 <= self.port <= 65535:
            raise InvalidRequest("port", self.port, "must be 0 to 65535")
        for name in ("api_key", "admin_key"):
            if getattr(self, name) == "":
                raise InvalidRequest(name, "", "must not be empty")
        if self.webhook_url is not None:
            if not self.webhook_url.startswith(("http://", "https://")):
                raise InvalidRequest("webhook_url", self.webhook_url, "must be http(s)://host/path")
            if self.webhook_secret is None:
                raise InvalidRequest("webhook_secret", None, "must be given with webhook_url")
        degree = self.ulysses_degree
        if degree is not None and (degree < 1 or self.num_gpus % degree):
            raise InvalidRequest("ulysses_degree", degree, f"must divide num_gpus={self.num_gpus}")
        if self.enable_cfg_parallel and self.num_gpus % 2:
            raise InvalidRequest("num_gpus", self.num_gpus, "must be even with enable_cfg_parallel")
        if self.enable_cfg_parallel and degree == self.num_gpus:
            allowed = "leaves no ranks for enable_cfg_parallel; at most half of num_gpus"
            raise InvalidRequest("ulysses_degree", degree, allowed)

    @property
    def without_secrets(self) -> ServerArgs:
        """The same, to be shown or sent."""
        return replace(self, api_key=None, admin_key=None, webhook_url=None, webhook_secret=None)
