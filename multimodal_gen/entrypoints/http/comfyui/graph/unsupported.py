"""Reasons for nodes that this server does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def why_unsupported(name: str) -> str | None:
    """Reason that this server has no node of this name, as a sentence's end; None for names that
    nobody else has either."""
    starting = (f"{reason}." for reason, starts in _REASONS.items() if name.startswith(starts))
    return next(starting, None)


_REASONS: dict[str, tuple[str, ...]] = {
    "controls are loaded by ControlNetLoader and applied by ControlNetApplyAdvanced": (
        *("ControlNet", "DiffControlNet", "QwenImageDiffsynthControlnet", "ModelPatchLoader"),
    ),
    "preprocessors are not available: load the finished picture": ("Canny",),
    "an image has one prompt": (
        *("ConditioningAverage", "ConditioningConcat", "ConditioningSet"),
        *("GLIGEN", "CreateHook", "SetHook", "PairConditioning", "CondPair"),
    ),
    "images are not used as prompts": ("StyleModel", "unCLIP", "PhotoMaker"),
    "IP-Adapters are controls: use ControlNetLoader and ControlNetApplyAdvanced": ("IPAdapter",),
    "latents are only enlarged between two samplers": (
        *("LatentComposite", "LatentBlend", "LatentCrop", "HunyuanRefiner"),
    ),
    "the schedule is the model's, or one of those with a name": (
        *("SplitSigmas", "FlipSigmas", "ManualSigmas", "SetFirstSigma", "ExtendIntermediate"),
        *("AlignYourSteps", "GITSScheduler", "LaplaceScheduler", "PolyexponentialScheduler"),
        "VPScheduler",
    ),
    "the model's own guidance is used": (
        *("RescaleCFG", "PerpNeg", "DualCFGGuider", "SkipLayerGuidance", "FreeU", "PAG", "SelfAtt"),
        *("PerturbedAttention", "CFGZeroStar", "HyperTile", "TomePatchModel"),
    ),
    "videos are saved as MP4 or animated WebP: use SaveVideo or SaveAnimatedWEBP": ("SaveWEBM",),
    "the server has one model": ("unCLIPCheckpoint", "ModelMerge", "CheckpointSave", "CLIPMerge"),
}

OF_THE_EDITOR = (
    "the prompt is a workflow as the editor saves it, not in ComfyUI's API format: export it "
    "there as API format"
)


def is_of_the_editor(graph: Mapping[str, Any]) -> bool:
    """True for a workflow with places of nodes and links, which only the editor can run."""
    return isinstance(graph.get("nodes"), list)


def why_no_prompt(given: Mapping[str, Any]) -> str:
    """Say what a body without `prompt` is, if it is a graph."""
    if is_of_the_editor(given):
        return OF_THE_EDITOR
    if any(isinstance(node, dict) and "class_type" in node for node in given.values()):
        return 'the body is the graph itself: send {"prompt": graph}'
    return 'send {"prompt": a graph in ComfyUI\'s API format}'
