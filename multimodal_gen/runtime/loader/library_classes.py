"""Classes that only the fallback loads: what the pipelines of its table are made of."""

import diffusers.schedulers

ALL_SCHEDULERS = tuple(name for name in dir(diffusers.schedulers) if name.endswith("Scheduler"))

MODELS = (
    "AsymmetricAutoencoderKL",
    "AuraFlowTransformer2DModel",
    "AutoencoderKLLTX2Video",
    "AutoencoderKLMochi",
    "AutoencoderTiny",
    "BriaFiboTransformer2DModel",
    "BriaTransformer2DModel",
    "ChromaTransformer2DModel",
    "CogView3PlusTransformer2DModel",
    "CogView4Transformer2DModel",
    "ErnieImageTransformer2DModel",
    "HiDreamImageTransformer2DModel",
    "HunyuanDiT2DModel",
    "Kandinsky3UNet",
    "LatteTransformer3DModel",
    "Lumina2Transformer2DModel",
    "LuminaNextDiT2DModel",
    "MochiTransformer3DModel",
    "MotionAdapter",
    "OvisImageTransformer2DModel",
    "SanaVideoTransformer3DModel",
    "SkyReelsV2Transformer3DModel",
    "UNetMotionModel",
    "VQModel",
)

ENCODERS = (
    "BertModel",
    "GemmaModel",
    "GlmModel",
    "LlamaForCausalLM",
    "Mistral3Model",
    "SmolLM3ForCausalLM",
)

TOKENIZERS = (
    "BertTokenizer",
    "BertTokenizerFast",
)
