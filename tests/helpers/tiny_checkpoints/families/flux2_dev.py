"""FLUX.2 dev: like klein, with embedded guidance and a Mistral 3."""

from diffusers import Flux2Pipeline, SchedulerMixin

from ..case import PICTURE, Case
from ..checkpoint import TinyCheckpoint
from ..llm_tokenizers import mistral_tokenizer
from ..llms import mistral3
from ..schedulers import FLUX_DEV
from .flux2 import WIDTH, flux2_transformer, flux2_vae


def flux2_dev_pipeline(scheduler: SchedulerMixin, *, heads: int) -> Flux2Pipeline:
    """The states after 10, 20 and 30 of the text encoder's layers are taken."""
    return Flux2Pipeline(
        scheduler=scheduler,
        vae=flux2_vae(),
        text_encoder=mistral3(layers=32, width=WIDTH),
        tokenizer=mistral_tokenizer(),
        transformer=flux2_transformer(heads, guidance_embeds=True),
    )


_LENGTH = {"max_sequence_length": 16}
"""So that the text has a weight beside padding."""
CHECKPOINTS = {
    "flux2-dev": TinyCheckpoint(
        flux2_dev_pipeline, FLUX_DEV, ("prompt", "seed", "steps", "guidance"), call=_LENGTH
    ),
}
CASES = {
    ("flux2_dev", "text-to-image"): Case("flux2-dev", changes=_LENGTH),
    ("flux2_dev", "image-edit"): Case("flux2-dev", changes=_LENGTH | PICTURE),
}
