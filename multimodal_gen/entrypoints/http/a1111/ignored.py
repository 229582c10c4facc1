"""Names the keys of a request that have no effect on this server.

A key is silent if it is empty, or has a value that changes nothing in the web UI either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from multimodal_gen.entrypoints.http.a1111.input_images.controlnet import SCRIPTS, units_in
from multimodal_gen.entrypoints.http.a1111.schema import Generation
from multimodal_gen.entrypoints.http.transport.warnings import at_most
from multimodal_gen.messages.request_warning import RequestWarning

ANY = None
"""For keys that never change an image by themselves."""
OFF = (0,)
"""Also false. What is empty is neutral for every key."""

_NEUTRAL: Mapping[str, Collection[Any] | None] = {
    "comments": ANY,
    "do_not_save_grid": ANY,
    "do_not_save_samples": ANY,
    "force_task_id": OFF,
    "image_cfg_scale": ANY,  # only used by InstructPix2Pix
    "initial_noise_multiplier": (1,),
    "latent_mask": OFF,
    "mask_round": (1,),
    "override_settings_restore_afterwards": ANY,
    "refiner_checkpoint": ("None",),
    "refiner_switch_at": ANY,
    "restore_faces": OFF,
    "s_churn": OFF,
    "s_min_uncond": OFF,
    "s_noise": (1,),
    "s_tmax": (0, float("inf")),  # 0 means no limit
    "s_tmin": OFF,
    "save_images": OFF,
    "script_args": ANY,
    "script_name": ("None",),
    "seed_resize_from_h": (-1, 0),
    "seed_resize_from_w": (-1, 0),
    "styles": OFF,
    "subseed": ANY,
    "subseed_strength": OFF,
    "tiling": OFF,
    # of forks
    "clip_skip": (0, 1),
    "firstphase_height": OFF,
    "firstphase_width": OFF,
}
"""Known keys with their neutral values; those of unknown keys are OFF. Those that start with
`hr_` are for hires_fix.py."""
_NEUTRAL_SETTINGS: Mapping[str, Collection[Any] | None] = {
    "CLIP_stop_at_last_layers": (0, 1),
    "eta_ancestral": (1,),
    "eta_ddim": OFF,
    "eta_noise_seed_delta": OFF,
    "live_previews_enable": ANY,
    "sd_vae": ("Automatic", "None"),
}
"""Other settings have no neutral value: many are on unless a client turns them off."""
_SETTINGS = ("sd_model_checkpoint", "samples_format", "jpeg_quality", "skip_early_cond")
"""Settings that have an effect."""
_OF_THE_MODEL = ("Model", "VAE", "Version", "Lora hashes", "TI hashes", "Hashes")
"""How the names of settings start that describe how a file was made; pasted, they change nothing
but the model."""
_AS_HERE = (("Clip skip", "1"), ("RNG", "CPU"))
_MAX_WARNINGS = 40
_ALIKE = 0.7


def ignored(body: Generation, solver: str | None) -> list[RequestWarning]:
    """Return a warning per key without effect; `solver` is the one that is used."""
    found = [*_keys(body), *_settings(body), *_scripts(body), *_eta(body, solver)]
    return at_most(_MAX_WARNINGS, found)


def ignored_infotext(said: Mapping[str, str], heeded: Collection[str]) -> list[RequestWarning]:
    """Return a warning per setting of an infotext that is neither heeded nor about the model."""
    idle = [
        _idle(_shown(name), "infotext: ")
        for name, value in said.items()
        if not (name in heeded or name.startswith(_OF_THE_MODEL) or (name, value) in _AS_HERE)
    ]
    return at_most(_MAX_WARNINGS, idle)


def without_effect(values: Mapping[str, Any]) -> list[RequestWarning]:
    """Return a warning per key of another body that is neither empty nor off."""
    idle = [
        _idle(_shown(name))
        for name, value in values.items()
        if not (_is_empty(value) or value in OFF)
    ]
    return at_most(_MAX_WARNINGS, idle)


def _keys(body: Generation) -> Iterator[RequestWarning]:
    for name, value in (body.model_extra or {}).items():
        if name.startswith("hr_") or _is_neutral(_NEUTRAL.get(name, OFF), value):
            continue
        if name in _NEUTRAL:
            yield _idle(_shown(name))
        else:
            near = get_close_matches(name[:60].lower(), type(body).model_fields, 1, _ALIKE)
            hint = f"; did you mean {near[0]}?" if near else ""
            text = f"{_shown(name)} is unknown and was ignored{hint}"
            yield RequestWarning("unknown_field", _shown(name), text)


def _settings(body: Generation) -> Iterator[RequestWarning]:
    for name, value in (body.override_settings or {}).items():
        if name in _SETTINGS or _is_neutral(_NEUTRAL_SETTINGS.get(name, ()), value):
            continue
        yield _idle(_shown(name), "override_settings: ")


def _scripts(body: Generation) -> Iterator[RequestWarning]:
    for name, script in (body.alwayson_scripts or {}).items():
        if _is_on(script) and not (name in SCRIPTS and [*units_in(script)]):
            yield _idle(_shown(name), "alwayson_scripts: ")


def _is_on(script: object) -> bool:
    """Return whether a script does anything: it has arguments, and none says that it is off."""
    args = script.get("args") if isinstance(script, dict) else script
    values = list(args.values()) if isinstance(args, dict) else args
    if not isinstance(values, list) or not values:
        return False
    units = [value for value in values if isinstance(value, dict)]
    off = bool(units) and all(unit.get("enabled") is False for unit in units)
    return values[0] is not False and not off


def _eta(body: Generation, solver: str | None) -> Iterator[RequestWarning]:
    """The web UI uses eta for DDIM and ancestral solvers only; 0 and 1 are what they have here."""
    neutral = {"ddim": 0, "euler_a": 1}
    if body.eta is not None and body.eta != neutral.get(solver or "", body.eta):
        text = f"eta has no effect on this server: {solver} has {neutral[solver or '']}"
        yield RequestWarning("no_effect", "eta", text)


def _idle(name: str, where: str = "") -> RequestWarning:
    return RequestWarning("no_effect", name, f"{where}{name} has no effect on this server")


def _is_neutral(neutral: Collection[Any] | None, value: object) -> bool:
    return neutral is ANY or _is_empty(value) or value in neutral


def _is_empty(value: object) -> bool:
    return value is None or value in ("", [], {})


def _shown(name: str) -> str:
    return f"{name[:60]!a}"[1:-1] or '""'
