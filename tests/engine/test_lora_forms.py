"""Forms of LoRAs: each layer gives what the formula's weight gives, row by row at its own scale."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import peft
import pytest
import torch
from engineless import load
from lora_forms import CONVOLUTION, LINEAR, make
from loras import write
from torch import Tensor, nn

from multimodal_gen.checkpoints.lora.folder import LoraFolder
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.loaded_loras import LoadedLoras
from multimodal_gen.runtime.layers.lora import Lora, LoraRows, LoraUse
from multimodal_gen.runtime.layers.lora_hooks import _layer_of
from multimodal_gen.runtime.layers.quantized.library import KeptLinear
from multimodal_gen.runtime.layers.quantized.storage import KeptWeight, PlainStorage
from multimodal_gen.runtime.loader.lora.reader import LoraReader
from multimodal_gen.runtime.loader.lora.targets import Target, targets_in
from multimodal_gen.runtime.pipelines.adapter_readers import lora_reader
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CPU = torch.device("cpu")
Checkpoints = Callable[..., Path]
SCALES = (0.6, None, 1.0, -0.4)
"""Of the rows of a batch; None: without the LoRA."""


@dataclass
class Model:
    pipeline: ComposedPipeline
    prefix: str
    wanted: str
    targets: dict[str, Target] = field(init=False)

    def __post_init__(self) -> None:
        found = dict(targets_in(self.pipeline.denoiser_module))
        words = self.wanted.split()
        self.targets = {
            name: target
            for name, target in found.items()
            if target.takes_rank and any(word in name for word in words)
        }

    def spelled(self, module: str) -> str:
        flat = self.prefix.endswith("_")
        return self.prefix + (module.replace(".", "_") if flat else module)

    def read(self, keys: Mapping[str, Tensor], folder: Path) -> Lora:
        write(folder / "ink.safetensors", keys)
        return lora_reader(self.pipeline).read(LoraFolder(folder).find("ink"))


@pytest.fixture(scope="module")
def flux(checkpoints: Checkpoints) -> Model:
    wanted = "blocks.0.attn.to_k blocks.0.attn.to_v proj_out blocks.0.ff.net.0 norm_out.linear"
    return Model(load(checkpoints("flux-dev")), "lycoris_", wanted)


@pytest.fixture(scope="module")
def quantized(checkpoints: Checkpoints) -> Model:
    pipeline = load(checkpoints("flux-dev"), quantization="int8")
    model = Model(pipeline, "diffusion_model.", "transformer_blocks.0.attn.to_k ff.net.2")
    assert any(isinstance(t.module, Linear) and t.module.kept for t in model.targets.values())
    return model


@pytest.fixture(scope="module")
def sd(checkpoints: Checkpoints) -> Model:
    wanted = "down_blocks.0.attentions.0.proj_in attn2.to_k resnets.0.conv1 downsamplers.0.conv"
    return Model(load(checkpoints("sd15")), "lora_unet_", wanted)


def numbers_of(target: Target) -> Tensor:
    module = target.module
    layer = module if isinstance(module, Linear) else _layer_of(module)
    rows = layer.numbers(range(target.start, target.start + target.shape[0]))
    return rows.view(target.shape)


def inputs_for(target: Target) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    _, width, *kernel = target.shape
    shape = (
        (width * target.groups, 6, 5)
        if kernel and isinstance(target.module, nn.Conv2d)
        else (3, width)
    )
    return torch.randn(len(SCALES), *shape, generator=generator)


def product(target: Target, weight: Tensor, x: Tensor) -> Tensor:
    layer = target.module if isinstance(target.module, Linear) else _layer_of(target.module)
    return layer.multiply(weight.float(), x)


def outputs(model: Model, target: Target, x: Tensor, rows: LoraRows | None) -> Tensor:
    if isinstance(target.module, Linear):
        whole: Tensor = target.module(x, rows)
        return whole[..., target.start : target.start + target.shape[0]]
    with model.pipeline.loras.hooks.applied(rows):
        found: Tensor = target.module(x)
        return found


def check(model: Model, form: str, folder: Path, within: float = 2e-5) -> None:
    keys, made = {}, {}
    for seed, (name, target) in enumerate(model.targets.items()):
        if "tucker" in form and len(target.shape) < 3:
            continue
        made[name] = make(form, numbers_of(target), seed)
        keys |= {f"{model.spelled(name)}.{key}": t for key, t in made[name].keys.items()}
    lora = model.read(keys, folder)
    model.pipeline.loras.add(0, lora)
    uses = [[] if scale is None else [LoraUse(0, scale)] for scale in SCALES]
    try:
        for name, one in made.items():
            target = model.targets[name]
            own, x = numbers_of(target), inputs_for(target)
            expected = outputs(model, target, x, None).clone()
            for row, scale in enumerate(SCALES):
                if scale is not None:
                    change = one.changed(scale) - own.double()
                    expected[row : row + 1] += product(target, change, x[row : row + 1])
            found = outputs(model, target, x, LoraRows(uses, CPU))
            assert (found - expected).abs().max() <= within * expected.abs().max(), name
            together = outputs(model, target, x, LoraRows([[LoraUse(0, 0.6)]] * len(x), CPU))
            torch.testing.assert_close(together[:1], found[:1], rtol=1e-4, atol=1e-4)
    finally:
        model.pipeline.loras.remove(0)


@pytest.mark.parametrize("form", LINEAR)
def test_a_form_does_what_its_weight_does_on_a_native_model(
    flux: Model, form: str, tmp_path: Path
) -> None:
    """Of some queries, keys and values that one weight has, and halves in another order."""
    check(flux, form, tmp_path)


@pytest.mark.parametrize("form", LINEAR)
def test_a_form_does_what_its_weight_does_on_quantised_weights(
    quantized: Model, form: str, tmp_path: Path
) -> None:
    """Products with them quantise the inputs too, which DoRA scales."""
    check(quantized, form, tmp_path, 5e-3 if "dora" in form else 2e-5)


@pytest.mark.parametrize("form", CONVOLUTION)
def test_a_form_does_what_its_weight_does_on_library_modules(
    sd: Model, form: str, tmp_path: Path
) -> None:
    check(sd, form, tmp_path)


def test_norms_of_columns_are_known_where_a_layer_has_one_output(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    krea = Model(load(checkpoints("krea2")), "diffusion_model.", "text_fusion.projector")
    assert [target.shape[0] for target in krea.targets.values()] == [1]
    check(krea, "wide-dora-lora", tmp_path)
    check(krea, "dora-lora", tmp_path)


# -- grouped convolutions


@pytest.mark.parametrize("form", ["lora", "loha", "lokr", "dora-lora", "diff", "tucker"])
def test_a_form_does_what_its_weight_does_on_grouped_convolutions(
    checkpoints: Checkpoints, form: str, tmp_path: Path
) -> None:
    module = load(checkpoints("sana")).denoiser_module
    name = next(n for n, t in targets_in(module) if t.groups > 1)
    assert name
    model = Model(load(checkpoints("sana")), "lycoris_", name)
    check(model, form, tmp_path)


# -- PEFT


class Small(nn.Module):
    """A layer of each kind that PEFT can change."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(24, 32)
        self.conv = nn.Conv2d(32, 16, 3, stride=2, padding=1)
        self.point = nn.Conv2d(16, 24, 1)
        self.grouped = nn.Conv2d(24, 32, 3, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        """Of images [R, 24, H, W]."""
        linear = self.linear(x.movedim(1, -1)).movedim(-1, 1)
        found: Tensor = self.grouped(self.point(self.conv(linear)))
        return found


EACH = ["linear", "conv", "point", "grouped"]
PEFT: dict[str, Callable[[], peft.PeftConfig]] = {
    "LoRA": lambda: peft.LoraConfig(r=4, lora_alpha=2, target_modules=EACH),
    "rsLoRA": lambda: peft.LoraConfig(r=4, use_rslora=True, target_modules=EACH[:3]),
    "DoRA": lambda: peft.LoraConfig(r=4, use_dora=True, target_modules=EACH[:3]),
    "LoHa": lambda: peft.LoHaConfig(r=4, alpha=2, target_modules=EACH[:3]),
    "LoHa, Tucker": lambda: peft.LoHaConfig(
        r=3, alpha=2, use_effective_conv2d=True, target_modules=EACH[:3]
    ),
    "LoKr": lambda: peft.LoKrConfig(
        r=2, alpha=1, decompose_both=True, decompose_factor=4, target_modules=EACH[:3]
    ),
    "LoKr, whole": lambda: peft.LoKrConfig(
        r=64, alpha=16, rank_pattern={"conv": 32}, target_modules=EACH[:3]
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", PEFT)
def test_a_form_does_what_it_does_in_peft(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = Small().requires_grad_(False)
    theirs = peft.get_peft_model(copy.deepcopy(plain), PEFT[form]())
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
            elif parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path / "ink")
    reader = LoraReader({"unet": plain}, "UNet2DConditionModel", CPU)
    loaded, x = LoadedLoras(CPU), torch.randn(3, 24, 9, 7)
    loaded.add(0, reader.read(LoraFolder(tmp_path).find("ink")))
    with torch.no_grad():
        expected, without = theirs(x), plain(x)
        with loaded.hooks.applied(loaded.rows([[LoraUse(0, 1.0)], [], [LoraUse(0, 1.0)]])):
            found = plain(x)
    torch.testing.assert_close(found[::2], expected[::2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], without[1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, without, atol=0.01)


# -- every tensor is accounted for


Keys = dict[str, Tensor]
OPTIONAL = ("alpha", "dora_scale")


def damaged(keys: Keys, rng: random.Random) -> Iterator[tuple[str, Keys]]:
    """The file without one key, and with one key that has another module or part; says which."""
    for key, tensor in keys.items():
        rest = {name: each for name, each in keys.items() if name != key}
        yield key, rest
        module, _, part = key.partition(".")
        at = rng.randrange(len(module) + 1)
        yield key, {**rest, f"{module[:at]}{rng.choice('x9')}{module[at:]}.{part}": tensor}
        yield key, {**rest, f"{module}.x{part}": tensor}


def attempt(model: Model, keys: Keys, folder: Path) -> Lora | None:
    """None if the file is refused."""
    try:
        return model.read(keys, folder)
    except InvalidRequest:
        return None


@pytest.mark.parametrize("form", LINEAR)
def test_a_form_that_lacks_a_tensor_is_refused_or_its_keys_are_named(
    flux: Model, form: str, tmp_path: Path
) -> None:
    name, target = next(iter(flux.targets.items()))
    other = next(each for each in flux.targets if each != name)
    one, more = make(form, numbers_of(target)), make("lora", numbers_of(flux.targets[other]))
    keys = {f"{flux.spelled(name)}.{key}": tensor for key, tensor in one.keys.items()}
    keys |= {f"{flux.spelled(other)}.{key}": tensor for key, tensor in more.keys.items()}
    refused = 0
    for missing, rest in damaged(keys, random.Random(form)):
        lora = attempt(flux, rest, tmp_path)
        refused += lora is None
        if lora is not None:
            named = "".join(lora.warnings)
            assert all(key in named for key in rest.keys() - keys.keys()), missing
            assert missing.endswith((*OPTIONAL, "diff")), missing
    assert refused > len(keys)


# -- quantised layers of library modules


@pytest.mark.parametrize("form", ["lora", "lokr-low", "dora-lora", "wide-dora-loha"])
def test_a_form_does_what_its_weight_does_on_a_library_layer_that_keeps_its_form(
    form: str, tmp_path: Path
) -> None:
    storage = PlainStorage(torch.randn(32, 24, generator=torch.Generator().manual_seed(0)).half())
    net = nn.Module()
    net.layer = KeptLinear(KeptWeight([storage], torch.float32), torch.ones(32))
    one = make(form, storage.values)
    keys = {f"lora_unet_layer.{key}": tensor for key, tensor in one.keys.items()}
    write(tmp_path / "ink.safetensors", keys)
    reader = LoraReader({"unet": net}, "UNet2DConditionModel", CPU)
    loaded, x = LoadedLoras(CPU), inputs_for(Target(net.layer, 0, (32, 24)))
    loaded.add(0, reader.read(LoraFolder(tmp_path).find("ink")))
    with torch.no_grad(), loaded.hooks.applied(loaded.rows([[LoraUse(0, 0.7)], [], [], []])):
        found = net.layer(x)
    for row, weight in ((0, one.changed(0.7)), (1, storage.values)):
        expected = nn.functional.linear(x[row], weight.float(), torch.ones(32))
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)
