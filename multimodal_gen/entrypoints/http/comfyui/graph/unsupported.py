"""Reasons for nodes that this server does not have."""

from __future__ import annotations


def why_unsupported(name: str) -> str:
    """Reason that this server has no node of this name."""
    for reason, starts in _REASONS.items():
        if name.startswith(starts):
            return reason
    return "it is not one of this server's nodes, which GET /object_info lists"


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
