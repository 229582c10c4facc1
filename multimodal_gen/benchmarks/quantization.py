"""Measures what quantised weights cost: size, likeness to 16 bit, and time on this CPU.

    python -m multimodal_gen.benchmarks.quantization docs/quantization.md

It replaces what stands between the two marks in the page. Pictures are the bundled model's. Layers
have the widths of published models, random 16-bit weights, and inputs of which one channel in a
hundred stands out tenfold, as in real ones.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen import DiffusionGenerator
from multimodal_gen.configs.quantization import Quantization
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.distributed.sequence import make_sequence_parallel
from multimodal_gen.runtime.layers.attention import select_attention
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.quantized.int8 import Int8Storage
from multimodal_gen.runtime.layers.quantized.int8_product import quantized_rows
from multimodal_gen.runtime.layers.quantized.rotated import RotatedStorage
from multimodal_gen.runtime.layers.quantized.storage import PlainStorage, Storage
from multimodal_gen.runtime.loader.tensors.derived import HeldTensor
from multimodal_gen.runtime.loader.tensors.when_loaded import WhenLoaded
from multimodal_gen.runtime.models.dits.flux.config import FluxConfig
from multimodal_gen.runtime.models.dits.flux.model import FluxTransformer
from multimodal_gen.runtime.models.dits.qwen_image.config import QwenImageConfig
from multimodal_gen.runtime.models.dits.qwen_image.model import QwenImageTransformer
from multimodal_gen.runtime.models.dits.stable_diffusion_3.config import SD3Config
from multimodal_gen.runtime.models.dits.stable_diffusion_3.model import SD3Transformer
from multimodal_gen.runtime.models.dits.wan.config import WanConfig
from multimodal_gen.runtime.models.dits.wan.model import WanTransformer
from multimodal_gen.runtime.models.dits.z_image.config import ZImageConfig
from multimodal_gen.runtime.models.dits.z_image.model import ZImageTransformer

_MARKS = ("<!-- measured -->", "<!-- end -->")
_PROMPTS = ("a red heart", "a rocket")
_TOKENS = 256
_GROUP = 256
_TRIES = 3
_MOST_ROWS = 1024
"""Rows of a weight that are measured: all of them are alike."""
_FAMILIES: dict[str, Callable[[Parts], nn.Module]] = {
    "FLUX.1": lambda parts: FluxTransformer(FluxConfig(num_layers=1, num_single_layers=1), parts),
    "Qwen-Image": lambda parts: QwenImageTransformer(QwenImageConfig(num_layers=1), parts),
    "SD 3.5 medium": lambda parts: SD3Transformer(
        SD3Config(num_layers=2, num_attention_heads=24, caption_projection_dim=1536), parts
    ),
    "Wan 1.3B": lambda parts: WanTransformer(
        WanConfig(num_layers=1, num_attention_heads=12, ffn_dim=8960), parts
    ),
    "Z-Image": lambda parts: ZImageTransformer(ZImageConfig(n_layers=1, n_refiner_layers=1), parts),
}


class Likeness(NamedTuple):
    """Likeness of two pictures."""

    psnr: float
    ssim: float


def _likeness(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Likeness:
    """PSNR, and SSIM with a Gaussian window: Wang et al. 2004, doi:10.1109/TIP.2003.819861."""
    x, y = (torch.from_numpy(each).double().permute(2, 0, 1)[:, None] for each in (one, other))
    offsets = torch.arange(-5, 6).double()
    window = torch.exp(-(offsets**2) / (2 * 1.5**2))
    square = torch.outer(window, window)[None, None] / window.sum() ** 2

    def blurred(picture: Tensor) -> Tensor:
        return F.conv2d(picture, square)

    mx, my = blurred(x), blurred(y)
    vx, vy, vxy = blurred(x * x) - mx**2, blurred(y * y) - my**2, blurred(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ssim = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    psnr = 10 * (255**2 / (x - y).square().mean().clamp(min=1e-9)).log10()
    return Likeness(float(psnr), float(ssim.mean()))


# -- pictures


def _pictures(form: Quantization | None) -> list[npt.NDArray[Any]]:
    with DiffusionGenerator.from_pretrained(quantization=form, dtype="float32") as generator:
        results = [generator.generate(prompt, seed=7) for prompt in _PROMPTS]
    return [np.array(result.images[0].convert("RGB")) for result in results]


def _picture_rows() -> Iterator[str]:
    exact = _pictures(None)
    for form in get_args(Quantization):
        pairs = zip(_pictures(form), exact, strict=True)
        found = [_likeness(one, other) for one, other in pairs]
        psnr, ssim = min(each.psnr for each in found), min(each.ssim for each in found)
        yield f"| `{form}` | {psnr:.1f} | {ssim:.3f} |"


# -- layers


def _rotated(weight: Tensor) -> Storage:
    rotated = RotatedStorage(PlainStorage(weight.float()), _GROUP).dequantized(torch.float32)
    return RotatedStorage(Int8Storage(*quantized_rows(rotated), quantizes_inputs=True), _GROUP)


def _when_loaded(form: Quantization) -> Callable[[Tensor], Storage]:
    how = WhenLoaded(form, quantizes_inputs=True)
    return lambda weight: how.storage([HeldTensor(weight, "BF16")], weight.shape, weight.device)


_FORMS: dict[str, Callable[[Tensor], Storage]] = {
    **{form: _when_loaded(form) for form in get_args(Quantization)},
    "int8-ConvRot": _rotated,
}


@dataclass
class _Sum:
    """Sums over the layers of a family in one form."""

    weights: int = 0
    size: int = 0
    seconds: float = 0
    in_floats: float = 0
    psnr: float = float("inf")

    def add(self, weight: Tensor, x: Tensor, storage: Storage) -> None:
        numbers = weight.float()
        seconds = _seconds(lambda: storage.product(x), lambda: F.linear(x, numbers))
        exact, found = F.linear(x, numbers), storage.product(x)
        error = (found - exact).square().mean().sqrt()
        self.psnr = min(self.psnr, 20 * float((exact.abs().max() / error).log10()))
        self.weights += weight.numel()
        self.size += sum(each.nbytes for each in storage.buffers())
        self.seconds += seconds[0]
        self.in_floats += seconds[1]


def _seconds(*works: Callable[[], object]) -> list[float]:
    """The least time of each in one thread, which take turns. Waiting for a busy CPU is not
    counted."""
    times = [[_once(work) for work in works] for _ in range(_TRIES)]
    return [min(each) for each in zip(*times, strict=True)]


def _once(work: Callable[[], object]) -> float:
    started = time.thread_time()
    work()
    return time.thread_time() - started


def _layer_rows() -> Iterator[str]:
    for name, make in _FAMILIES.items():
        sums = {form: _Sum() for form in _FORMS}
        for rows, columns in _shapes(make):
            weight = torch.randn(rows, columns).mul_(columns**-0.5).bfloat16()
            x = torch.randn(_TOKENS, columns) * (1 + 9 * (torch.rand(columns) < 0.01))
            for form, total in sums.items():
                total.add(weight, x, _FORMS[form](weight))
        for form, each in sums.items():
            size, speed = each.size / each.weights / 2, each.in_floats / each.seconds
            yield f"| {name} | `{form}` | {size:.2f} | {each.psnr:.1f} | {speed:.1f} |"


def _shapes(make: Callable[[Parts], nn.Module]) -> list[tuple[int, int]]:
    """Shapes of the weights that would be quantised."""
    parts = Parts(make_sequence_parallel(Mesh(), select_attention("auto")))
    with torch.device("meta"):
        module = make(parts)
    names = WhenLoaded("int8", quantizes_inputs=True).layers(module)
    layers: list[Any] = [module.get_submodule(name) for name in names]
    return sorted({(min(layer.shape[0], _MOST_ROWS), layer.shape[1]) for layer in layers})


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    numbers = f"family {named.get('cpu family')}, model {named.get('model')}"
    vnni = "with" if "avx512_vnni" in named.get("flags", "") else "without"
    return f"{named.get('model name')} ({numbers}, {vnni} VNNI), one thread"


def _report() -> str:
    return "\n".join(
        (
            "| bundled model | PSNR (dB) | SSIM |",
            "|---|---|---|",
            *_picture_rows(),
            "",
            f"Layers with {_TOKENS} tokens, on {_processor()}:",
            "",
            "| layers of | form | size, of 16 bit | PSNR (dB) | speed, of float32 |",
            "|---|---|---|---|---|",
            *_layer_rows(),
        )
    )


@torch.inference_mode()
def main() -> None:
    """Measure, and write the tables into the page that the command line names."""
    page = Path(sys.argv[1])
    before, _, rest = page.read_text().partition(_MARKS[0])
    _, _, after = rest.partition(_MARKS[1])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    page.write_text(f"{before}{_MARKS[0]}\n\n{_report()}\n\n{_MARKS[1]}{after}")


if __name__ == "__main__":
    main()
