"""Input pictures for parity tests."""

import numpy as np
import PIL.Image


def picture(width: int, height: int, mode: str = "RGB") -> PIL.Image.Image:
    """Coarse coloured noise, or with mode "L" a mask in all greys; always the same."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return PIL.Image.fromarray(noise).resize((width, height)).convert(mode)


def gradient() -> PIL.Image.Image:
    """From black at the top to white, 256 x 256 pixels."""
    return PIL.Image.linear_gradient("L").convert("RGB")


def clip(frames: int, width: int, height: int) -> list[PIL.Image.Image]:
    """A video: coarse coloured noise that moves."""
    wide = picture(width + 4 * frames, height)
    return [wide.crop((4 * i, 0, 4 * i + width, height)) for i in range(frames)]
