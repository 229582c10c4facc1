"""What a user asks for: one prompt, and how to make pictures or a video of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from multimodal_gen.errors import InvalidRequest

Priority = Literal["low", "normal", "high"]


@dataclass(frozen=True)
class LoraChoice:
    """A LoRA by the name it has in the operator's folder, and how strongly it acts."""

    name: str
    scale: float = 1.0

    @classmethod
    def of(cls, given: object) -> LoraChoice:
        """What was given as NAME, NAME:SCALE or {"name": …, "scale": …}. Raises InvalidRequest."""
        if isinstance(given, str):
            name, colon, scale = given.rpartition(":")
            scaled = bool(colon) and _is_number(scale)
            given = {"name": name, "scale": float(scale)} if scaled else {"name": given}
        if isinstance(given, Mapping) and given.keys() <= {"name", "scale"}:
            given = cls(given.get("name", ""), given.get("scale", 1.0))
        if not isinstance(given, cls) or not isinstance(given.name, str) or not given.name:
            raise InvalidRequest(
                "lora", given, 'must be NAME, NAME:SCALE or {"name": …, "scale": …}'
            )
        if isinstance(given.scale, bool) or not isinstance(given.scale, int | float):
            raise InvalidRequest("lora", given.scale, "scale must be a number")
        return given


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """A request for pictures or a video. What is None takes the model's default."""

    prompt: str = ""
    """What to show."""
    negative_prompt: str | None = None
    """What to keep away from; acts with classifier-free guidance only."""
    width: int | None = None
    """Pixels; a multiple of what the model needs."""
    height: int | None = None
    """Pixels; a multiple of what the model needs."""
    num_frames: int | None = None
    """Frames of a video."""
    fps: int | None = None
    """Frames a second of a video."""
    num_inference_steps: int | None = None
    """Denoising steps: more take longer and show more detail."""
    guidance_scale: float | None = None
    """How closely to follow the prompt."""
    guidance_scale_2: float | None = None
    """The same for the second expert of models that have two."""
    true_cfg_scale: float | None = None
    """Classifier-free guidance for models whose guidance_scale is embedded (FLUX)."""
    flow_shift: float | None = None
    """Shift of a flow-matching schedule; larger spends more steps on the layout."""
    seed: int | None = None
    """The same seed gives the same picture; of several outputs, output j has seed + j."""
    num_outputs_per_prompt: int = 1
    """Pictures a prompt."""
    max_sequence_length: int | None = None
    """Tokens that the prompt is padded or cut to, where the model has a choice."""
    scheduler: str | None = None
    """Short name of a solver: euler, ddim, dpmpp_2m, flow_euler …; `models` lists what fits."""
    image_path: str | None = None
    """A picture to start from."""
    mask_path: str | None = None
    """Where to paint: white is changed, black is kept."""
    strength: float | None = None
    """How much of the given picture to replace, 0 to 1."""
    lora: tuple[LoraChoice, ...] = ()
    """LoRAs from the operator's folder: NAME, or NAME:SCALE for other than full strength."""
    priority: Priority = "normal"
    """low, normal or high."""
    deadline_s: float | None = None
    """Seconds from acceptance; a request that can't be done by then is refused at once."""

    def __post_init__(self) -> None:
        for name, (allowed, kinds) in _CHECKS.items():
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise InvalidRequest(name, value, f"must be {allowed}")
        if not isinstance(self.prompt, str):
            raise InvalidRequest("prompt", self.prompt, "must be text")
        given = self.lora if isinstance(self.lora, list | tuple) else (self.lora,)
        object.__setattr__(self, "lora", tuple(LoraChoice.of(choice) for choice in given))
        if self.priority not in ("low", "normal", "high"):
            raise InvalidRequest("priority", self.priority, "must be low, normal or high")

    @classmethod
    def from_fields(cls, **given: Any) -> SamplingParams:
        """As the constructor, but an unknown name is an InvalidRequest that lists those known."""
        return cls().updated(**given)

    def updated(self, **given: Any) -> SamplingParams:
        """A copy with these fields; an unknown name is an InvalidRequest that lists those known."""
        known = [field.name for field in fields(self)]
        for name in given:
            if name not in known:
                raise InvalidRequest(name, given[name], f"unknown; allowed are {', '.join(known)}")
        return replace(self, **given)


_WHOLE = ("a whole number", int)
_NUMBER = ("a number", (int, float))
_TEXT = ("text", str)
_CHECKS: dict[str, tuple[str, Any]] = {
    "negative_prompt": _TEXT,
    "width": _WHOLE,
    "height": _WHOLE,
    "num_frames": _WHOLE,
    "fps": _WHOLE,
    "num_inference_steps": _WHOLE,
    "guidance_scale": _NUMBER,
    "guidance_scale_2": _NUMBER,
    "true_cfg_scale": _NUMBER,
    "flow_shift": _NUMBER,
    "seed": _WHOLE,
    "num_outputs_per_prompt": _WHOLE,
    "max_sequence_length": _WHOLE,
    "scheduler": _TEXT,
    "image_path": _TEXT,
    "mask_path": _TEXT,
    "strength": _NUMBER,
    "deadline_s": _NUMBER,
}
