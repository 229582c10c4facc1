"""Every number of a LoRA file arrives where its module's row is: the numbers say where that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import full_checkpoints
import pytest
import single_files
import torch
from diffusers.loaders import single_file_utils as library
from engineless import load
from loras import diffusers_keys, kohya_keys, write
from torch import Tensor

from multimodal_gen.checkpoints.lora.folder import LoraFolder
from multimodal_gen.runtime.layers.lora import Lora
from multimodal_gen.runtime.layers.lora_terms import Difference, LowRank
from multimodal_gen.runtime.loader.lora.targets import targets_in
from multimodal_gen.runtime.loader.original.names import original_names
from multimodal_gen.runtime.pipelines.adapter_readers import lora_reader

Keys = dict[str, Tensor]
CHECKPOINTS = (
    "flux-dev",
    "flux-schnell",
    "flux2-klein",
    "flux2-dev",
    "chroma",
    "sd15",
    "sdxl",
    "sd3",
    "sd35",
    "wan",
    "wan-vace",
    "wan-i2v",
    "wan22-ti2v",
    "qwenimage",
    "zimage",
    "ltx",
    "hunyuan-video",
    "cogvideox",
    "sana",
    "pixart-sigma",
)
ORIGINAL = {
    **single_files.ORIGINAL,
    "sd15": full_checkpoints.unet,
    "sdxl": full_checkpoints.unet,
}


class Numbered:
    """A model whose modules' rows are numbered, and LoRAs of these numbers."""

    def __init__(self, name: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.name = name
        self.pipeline = load(folder)
        found = targets_in(self.pipeline.denoiser_module)
        self.targets = {module: target for module, target in found if target.groups == 1}
        self.numbers: dict[str, Tensor] = {}
        count = 1
        for module, target in self.targets.items():
            self.numbers[module] = torch.arange(count, count + target.shape[0]).float()
            count += target.shape[0]
        tensors = {f"{name}.weight": numbers for name, numbers in self.numbers.items()}
        for module in (single_files, full_checkpoints):
            patch.setattr(module, "weights", lambda folder, component="": dict(tensors))
        self.folder = folder

    def originals(self) -> dict[str, Tensor]:
        """The numbers, by the model authors' names."""
        make = ORIGINAL.get(self.name, lambda folder: single_files.weights(folder))
        found = {key.rpartition(".")[0]: numbers for key, numbers in make(self.folder).items()}
        return {key: numbers for key, numbers in found.items() if key != "norm_final"}

    def shape(self, number: float) -> tuple[int, ...]:
        """Shape of the module's weight that has the row of this number."""
        (module,) = [name for name, own in self.numbers.items() if own[0] <= number <= own[-1]]
        return self.targets[module].shape

    def takes_rank(self, number: float) -> bool:
        (module,) = [name for name, own in self.numbers.items() if own[0] <= number <= own[-1]]
        return self.targets[module].takes_rank

    def arrived(self, lora: Lora) -> dict[str, Tensor]:
        """Numbers that arrive at each module of diffusers, nought where none does."""
        found = {name: torch.zeros_like(own) for name, own in self.numbers.items()}
        for name, target in self.targets.items():
            for term in lora.terms.get(target.module, ()):
                first = max(term.start, target.start)
                end = min(term.start + term.channels, target.start + target.shape[0])
                if first < end:
                    rows = numbers_of(term)[first - term.start : end - term.start]
                    found[name][first - target.start : end - target.start] += rows
        return found


def numbers_of(term: LowRank | Difference) -> Tensor:
    if isinstance(term, LowRank):
        return term.up.flatten(1)[:, 0] * term.scale
    part = term.bias if term.weight is None else term.weight
    assert part is not None
    return part.flatten(1)[:, 0] if part.dim() > 1 else part


@pytest.fixture(scope="module", params=CHECKPOINTS)
def model(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Iterator[Numbered]:
    with pytest.MonkeyPatch.context() as patch:
        yield Numbered(request.param, checkpoints(request.param), patch)


def pairs(model: Numbered, numbers: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """down and up of a rank of 2 for each layer; only the first of them counts."""
    found = {}
    for name, rows in numbers.items():
        if model.takes_rank(float(rows[0])):
            _, *into = model.shape(float(rows[0]))
            down = torch.zeros(2, *into)
            kernel = [1] * (len(into) - 1)
            up = torch.stack((rows, torch.zeros_like(rows)), 1)
            found[name] = (down, up.view(len(rows), 2, *kernel))
    return found


def renamed(keys: Keys, before: str, after: str) -> Keys:
    return {key.replace(before, after): tensor for key, tensor in keys.items()}


Layout = Callable[[Numbered], Keys]
LAYOUTS: dict[str, Layout] = {
    "diffusers": lambda m: diffusers_keys(m.pipeline.denoiser_name, pairs(m, m.numbers)),
    "PEFT": lambda m: renamed(
        diffusers_keys("base_model.model", pairs(m, m.numbers)), ".weight", ".default.weight"
    ),
    "OneTrainer": lambda m: kohya_keys("lora_transformer", pairs(m, m.numbers)),
    "LyCORIS": lambda m: kohya_keys("lycoris", pairs(m, m.numbers)),
    "ComfyUI": lambda m: renamed(
        diffusers_keys("diffusion_model", pairs(m, m.originals())), ".lora_A.", ".lora_down."
    ),
    "BFL": lambda m: diffusers_keys("base_model.model", pairs(m, m.originals())),
    "kohya": lambda m: kohya_keys("lora_unet", pairs(m, m.originals())),
}


def read(model: Numbered, keys: Keys, folder: Path) -> Lora:
    write(folder / "x.safetensors", keys)
    return lora_reader(model.pipeline).read(LoraFolder(folder).find("x"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_row_of_a_layer_arrives_at_its_place(
    model: Numbered, layout: str, tmp_path: Path
) -> None:
    lora = read(model, LAYOUTS[layout](model), tmp_path)
    arrived = model.arrived(lora)
    assert lora.warnings == ()
    for name, rows in model.numbers.items():
        if model.targets[name].takes_rank:
            assert torch.equal(arrived[name], rows), name


@pytest.mark.parametrize("kind", ["diff", "diff_b"])
@pytest.mark.parametrize("original", [False, True], ids=["diffusers", "original"])
def test_each_row_of_a_difference_arrives_at_its_place(
    model: Numbered, original: bool, kind: str, tmp_path: Path
) -> None:
    numbers = model.originals() if original else model.numbers
    keys: Keys = {}
    expected: set[str] = set()
    for name, rows in numbers.items():
        of = [m for m, own in model.numbers.items() if set(own.tolist()) <= set(rows.tolist())]
        if kind == "diff_b" and not all(model.targets[m].takes_bias for m in of):
            continue
        expected |= {*of}
        tail = model.shape(float(rows[0]))[1:] if kind == "diff" else ()
        shaped = rows.view(-1, *[1] * len(tail)).expand(-1, *tail)
        if name.endswith("modulation") and kind == "diff":
            keys[f"diffusion_model.{name.removesuffix('.modulation')}.diff_m"] = shaped
        else:
            keys[f"diffusion_model.{name}.{kind}"] = shaped
    lora = read(model, keys, tmp_path)
    arrived = model.arrived(lora)
    assert lora.warnings == ()
    assert expected
    for name in expected:
        assert torch.equal(arrived[name], model.numbers[name]), name


def test_sanas_original_names_are_those_of_its_single_files(
    checkpoints: Callable[..., Path],
) -> None:
    """Converted by diffusers; the other tables are held against files that the tests make."""
    module = load(checkpoints("sana")).denoiser_module
    targets = dict(targets_in(module))
    names = original_names("SanaTransformer2DModel", targets).names
    rows = {
        name: torch.full((target.shape[0], 1), float(number))
        for number, (name, target) in enumerate(targets.items())
    }
    file = {
        f"{name}.{kind}": torch.cat([rows[each] for each in original.modules])
        for name, original in names.items()
        for kind in ("weight", "bias")
    }
    blocks = {name.split(".")[1] for name in names if name.startswith("blocks.")}
    file |= {f"blocks.{n}.scale_shift_table": torch.zeros(1) for n in blocks}
    unused = ("pos_embed", "y_embedder.y_embedding", "final_layer.scale_shift_table")
    file |= dict.fromkeys(unused, torch.zeros(1))
    converted = library.convert_sana_transformer_to_diffusers(file)
    for name, own in rows.items():
        if name in {each for original in names.values() for each in original.modules}:
            assert torch.equal(converted[f"{name}.weight"], own), name
