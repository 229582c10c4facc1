"""Facts about diffusers' pipelines that their signatures don't say, for `write_table`."""

from __future__ import annotations

from collections.abc import Mapping

from multimodal_gen.messages.model_info import TaskName

_NO_INPUT = "needs inputs that this server does not have: {}"
_TWO_LOOPS = "runs two pipelines in turn, the first without step callbacks"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "KandinskyCombinedPipeline",
            "KandinskyImg2ImgCombinedPipeline",
            "KandinskyInpaintCombinedPipeline",
            "KandinskyV22CombinedPipeline",
            "KandinskyV22Img2ImgCombinedPipeline",
            "KandinskyV22InpaintCombinedPipeline",
            "StableCascadeCombinedPipeline",
        ),
        _TWO_LOOPS,
    ),
    "AnimateDiffVideoToVideoControlNetPipeline": _NO_INPUT.format("conditioning_frames"),
    "ChromaInpaintPipeline": "fails in this diffusers: its transformer has no guidance_embeds",
    "DiffusionPipeline": "a base class",
    "EasyAnimateInpaintPipeline": _NO_INPUT.format("mask_video"),
    "GlmImagePipeline": "needs packages that are missing: torchvision",
    "LTX2DFRTemporalRefinePipeline": _NO_INPUT.format("keyframes_latents"),
    "LTX2HDRPipeline": _NO_INPUT.format("reference_conditions"),
    "PRXPipeline": "needs T5GemmaEncoder, which is not one of transformers' own classes",
    "QwenImageLayeredPipeline": "makes layers with transparency, which are no picture",
    "SanaWMPipeline": _NO_INPUT.format("c2w or action, the path of a camera"),
    "ShapEImg2ImgPipeline": "makes three-dimensional models",
    "ShapEPipeline": "makes three-dimensional models",
    **dict.fromkeys(
        (
            "StableDiffusionXLControlNetUnionImg2ImgPipeline",
            "StableDiffusionXLControlNetUnionInpaintPipeline",
            "StableDiffusionXLControlNetUnionPipeline",
        ),
        _NO_INPUT.format("control_mode"),
    ),
    "VisualClozeGenerationPipeline": _NO_INPUT.format("task_prompt, a grid of pictures"),
    "VisualClozePipeline": _NO_INPUT.format("task_prompt, a grid of pictures"),
    "WanAnimatePipeline": _NO_INPUT.format("pose_video, face_video"),
}
"""Reasons that no signature shows, by class."""

OPTIONAL = frozenset(
    {
        "AnyFlowFARPipeline",
        "AnyFlowPipeline",
        "DreamLiteMobilePipeline",
        "DreamLitePipeline",
        "Flux2KleinKVPipeline",
        "Flux2KleinPipeline",
        "Flux2Pipeline",
        "FluxKontextPipeline",
        "HeliosPipeline",
        "HeliosPyramidPipeline",
        "JoyImageEditPlusPipeline",
        "Kandinsky6TI2VAPipeline",
        "LTXConditionPipeline",
        "LTXI2VLongMultiPromptPipeline",
        "OmniGenPipeline",
        "QwenImage21Pipeline",
        "WanVACEPipeline",
        "ZImageOmniPipeline",
    }
)
"""Pipelines that need no picture, though they take one."""

TASKS: Mapping[str, tuple[TaskName, ...]] = {
    "BriaFibo2Pipeline": ("text-to-image", "image-edit", "inpainting"),
    "BriaFiboEditPipeline": ("image-edit", "inpainting"),
}

INPUTS: Mapping[str, Mapping[str, str]] = {
    "AnimateDiffSparseControlNetPipeline": {"image": "conditioning_frames"},
    "EasyAnimateControlPipeline": {"image": "ref_image"},
    "WanVACEPipeline": {"image": "reference_images", "video": "video"},
}
"""Input pictures that the names of parameters do not show."""

SEVERAL: Mapping[str, int] = {
    "Flux2KleinKVPipeline": 10,
    "Flux2KleinPipeline": 10,
    "Flux2Pipeline": 10,
    "JoyImageEditPlusPipeline": 6,
    "OmniGenPipeline": 3,
    "QwenImage21Pipeline": 4,
    "QwenImageEditPlusPipeline": 4,
    "WanVACEPipeline": 4,
    "ZImageOmniPipeline": 4,
}
"""Pipelines that take a list of pictures, and how many of them."""

SIZES: Mapping[str, tuple[int, int]] = {
    "AllegroPipeline": (1280, 720),
    "BriaFibo2Pipeline": (1024, 1024),
    "BriaFiboPipeline": (1024, 1024),
    "BriaPipeline": (1024, 1024),
    "ChromaPipeline": (1024, 1024),
    "CogVideoXFunControlPipeline": (720, 480),
    "CogVideoXImageToVideoPipeline": (720, 480),
    "CogVideoXVideoToVideoPipeline": (720, 480),
    "HiDreamImagePipeline": (1024, 1024),
    "HunyuanImagePipeline": (2048, 2048),
    "HunyuanImageRefinerPipeline": (2048, 2048),
    "HunyuanVideo15Pipeline": (848, 480),
    "MochiPipeline": (848, 480),
    "OvisImagePipeline": (1024, 1024),
}
"""Width and height that neither the call nor the denoiser's `sample_size` tells."""

MULTIPLES: Mapping[str, int] = {
    "Kandinsky3Img2ImgPipeline": 64,
    "Kandinsky3Pipeline": 64,
}

FRAMES: Mapping[str, int] = {
    "AllegroPipeline": 88,
    "LTX2ConditionPipeline": 121,
    "LTX2DFRPipeline": 121,
    "LTX2ImageToVideoPipeline": 121,
    "LTX2Pipeline": 121,
}
FPS: Mapping[str, int] = {
    "AnimateDiffPipeline": 8,
    "AnimateDiffSDXLPipeline": 8,
    "HunyuanVideo15Pipeline": 24,
    "LattePipeline": 8,
    "MochiPipeline": 30,
    "SanaVideoPipeline": 16,
    "SkyReelsV2Pipeline": 24,
}
USUAL_FPS = 16

NEVER_LOADED = frozenset(
    {
        "CosmosSafetyChecker",
        "IFSafetyChecker",
        "IFWatermarker",
        "StableDiffusionSafetyChecker",
        "LTX2DurationHead",
        "Ideogram4PromptEnhancerHead",
    }
)
"""Classes of components that no pipeline needs for a picture."""

CLASSES: Mapping[str, tuple[str, ...]] = {
    "diffusers": (
        "diffusers.AsymmetricAutoencoderKL",
        "diffusers.AutoencoderTiny",
        "diffusers.AutoencoderKLLTX2Video",
        "diffusers.HunyuanVideo15Transformer3DModel",
    ),
    "transformers": (
        "transformers.Gemma2Model",
        "transformers.GemmaModel",
        "transformers.Mistral3Model",
        "transformers.Qwen3ForCausalLM",
        "transformers.Qwen3Model",
    ),
    "tokenizer": (
        "transformers.BertTokenizerFast",
        "transformers.CLIPTokenizerFast",
        "transformers.GemmaTokenizerFast",
        "transformers.LlamaTokenizerFast",
        "transformers.PreTrainedTokenizerFast",
        "transformers.Qwen2TokenizerFast",
        "transformers.T5TokenizerFast",
        "transformers.TokenizersBackend",
    ),
    "image_processor": (
        "transformers.CLIPImageProcessor",
        "transformers.CLIPImageProcessorFast",
        "transformers.DPTImageProcessor",
        "transformers.DPTImageProcessorFast",
        "transformers.SiglipImageProcessor",
        "transformers.SiglipImageProcessorFast",
        "transformers.Siglip2ImageProcessor",
        "transformers.Siglip2ImageProcessorFast",
    ),
    "processor": (
        "transformers.Qwen2VLProcessor",
        "transformers.Qwen2_5_VLProcessor",
        "transformers.Qwen3VLProcessor",
    ),
}
"""Classes of components that constructors name by a base class only."""
