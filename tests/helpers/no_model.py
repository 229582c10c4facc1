"""A model that nobody loads, for tests of what stands before the ranks."""

from multimodal_gen.messages.model_info import Defaults, Limits, ModelInfo

MODEL = ModelInfo(
    name="test",
    family="test",
    tasks=("text-to-image",),
    defaults=Defaults(width=64, height=64, num_inference_steps=4),
    limits=Limits(),
    size_multiple=16,
    schedulers=("euler",),
)
