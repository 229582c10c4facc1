"""Many prompts: they share the model's evaluations, and one that fails spoils no other."""

from collections.abc import Sequence

from multimodal_gen import DiffusionGenerator, GenerationResult, SamplingParams
from multimodal_gen.errors import MultimodalGenError

prompts: list[str | SamplingParams] = [
    "a pizza",
    "a dog",
    SamplingParams(prompt="a red heart", num_inference_steps=40),  # its own parameters
    SamplingParams(prompt="a cat", width=33),  # not a size that the model can make
]

with DiffusionGenerator.from_pretrained() as generator:
    outcomes: Sequence[GenerationResult | MultimodalGenError]
    try:
        outcomes = generator.generate(prompts, seed=1)
    except MultimodalGenError as first:
        outcomes = first.siblings
    for outcome in outcomes:
        if isinstance(outcome, MultimodalGenError):
            print("not made:", outcome)
        else:
            print(outcome.save("batch/")[0], "shared with", max(outcome.batch_sizes) - 1)
