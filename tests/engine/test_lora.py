"""LoRAs of single requests: alone, together, in one batch, and files that don't fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from engineless import Output, finish, left, load, run, start
from loras import LoadedLoras, diffusers_keys, kohya_keys, random_lora, write
from parity import LATENTS, PIXELS, pixels_apart, relative
from tiny_checkpoints import reference, stock_pipeline

from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.plan import Phase
from multimodal_gen.messages.validation import resolve
from multimodal_gen.runtime.layers.lora import LoraUse
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 48,
    "width": 64,
    "num_inference_steps": 2,
}
GUIDED = {"flux-dev": {"true_cfg_scale": 3.0, "negative_prompt": "blurry"}}


@dataclass
class Model:
    folder: Path
    pipeline: ComposedPipeline
    guided: dict[str, Any]
    root: Path
    """The operator's folder, which has: all, of every module; attention; encoder."""
    loaded: LoadedLoras

    def uses(self, **scales: float) -> list[LoraUse]:
        return [self.loaded.use(name, scale) for name, scale in scales.items()]

    def run(self, uses: Sequence[LoraUse] = (), **change: Any) -> Output:
        params = SamplingParams(**{**CALL, **self.guided, **change})
        return run(self.pipeline, params, loras=uses)


@pytest.fixture(scope="module", params=["flux-dev", "sd15"])
def model(
    request: pytest.FixtureRequest,
    checkpoints: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Model:
    folder, root = checkpoints(request.param), tmp_path_factory.mktemp("loras")
    stock, pipeline = stock_pipeline(folder), load(folder)
    name = pipeline.denoiser_name
    denoiser = getattr(stock, name)
    for lora, words in {"all": "attn ff conv linear", "attention": "attn"}.items():
        keys = diffusers_keys(name, random_lora(denoiser, words, seed=len(words)))
        write(root / f"{lora}.safetensors", keys)
    write(root / "dora.safetensors", dora_keys(name, denoiser))
    encoder = random_lora(stock.text_encoder, "q_proj fc1", seed=9)
    write(root / "encoder.safetensors", diffusers_keys("text_encoder", encoder))
    guided = GUIDED.get(request.param, {})
    return Model(folder, pipeline, guided, root, LoadedLoras(pipeline, root))


def dora_keys(component: str, denoiser: torch.nn.Module) -> dict[str, torch.Tensor]:
    """As PEFT saves it, for linear layers."""
    weights = random_lora(denoiser, "to_q to_v ff.net proj_out", seed=5)
    layers = {name: denoiser.get_submodule(name) for name in weights}
    linear = {name: m for name, m in layers.items() if isinstance(m, torch.nn.Linear)}
    norms = {name: layer.weight.detach().norm(dim=1) for name, layer in linear.items()}
    keys = diffusers_keys(component, {name: weights[name] for name in linear})
    return keys | {
        f"{component}.{name}.lora_magnitude_vector": norm * torch.linspace(0.8, 1.3, len(norm))
        for name, norm in norms.items()
    }


def test_dora_is_that_of_diffusers(model: Model) -> None:
    stock = stock_pipeline(model.folder)
    stock.load_lora_weights(model.root, weight_name="dora.safetensors", adapter_name="dora")
    stock.set_adapters(["dora"], [0.7])
    try:
        theirs = reference(model.folder, **CALL, **model.guided)
    finally:
        stock.unload_lora_weights()
    ours = model.run(model.uses(dora=0.7))
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_several_loras_add_up_as_in_diffusers(model: Model) -> None:
    scales = {"all": 0.6, "attention": -0.8, "encoder": 1.5}
    stock = stock_pipeline(model.folder)
    for name in scales:
        stock.load_lora_weights(model.root, weight_name=f"{name}.safetensors", adapter_name=name)
    stock.set_adapters(list(scales), list(scales.values()))
    try:
        theirs = reference(model.folder, **CALL, **model.guided)
    finally:
        stock.unload_lora_weights()
    ours = model.run(model.uses(**scales))
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS


def test_requests_with_unlike_loras_share_a_batch_and_keep_their_pictures(model: Model) -> None:
    loras = [
        model.uses(all=0.6),
        [],
        model.uses(attention=1.0, encoder=0.5),
        model.uses(all=-0.3, attention=0.5),
        model.uses(dora=0.8, all=0.2),
        model.uses(all=0.6),
    ]
    params = [SamplingParams(**CALL, **model.guided, seed=seed) for seed in range(len(loras))]
    each = zip(params, loras, strict=True)
    states = [start(model.pipeline, one, loras=uses) for one, uses in each]
    assert len({model.pipeline.batch_key(state, 0) for state in states}) == 1
    model.pipeline.forward(Phase.DENOISE, states, left(states[0]))
    for seed, (state, uses) in enumerate(zip(states, loras, strict=True)):
        together, alone = finish(model.pipeline, state), model.run(uses, seed=seed)
        torch.testing.assert_close(together.latents, alone.latents, rtol=1e-4, atol=1e-4)


def test_a_lora_of_the_text_encoder_is_not_seen_by_those_without_it(model: Model) -> None:
    before, with_it, after = model.run(), model.run(model.uses(encoder=1.0)), model.run()
    assert torch.equal(before.latents, after.latents)
    assert not torch.allclose(before.latents, with_it.latents)


def test_a_lora_that_is_gone_leaves_the_model_as_it_was(model: Model) -> None:
    shared = additions(model)  # of the LoRAs that all tests share
    before = model.run()
    use = LoadedLoras(model.pipeline, model.root).use("all")
    model.run([use])
    assert additions(model) > shared
    model.pipeline.loras.remove(use.key)
    assert additions(model) == shared
    assert torch.equal(before.latents, model.run().latents)


def additions(model: Model) -> int:
    """Number of (module, LoRA) pairs where the LoRA adds to the module."""
    hooked = [bank for bank, _ in model.pipeline.loras.hooks._banks.values()]
    modules = model.pipeline.denoiser_module.modules()
    return sum(map(len, [*hooked, *(m.loras for m in modules if hasattr(m, "loras"))]))


def attention_layer(model: Model) -> tuple[str, str, torch.nn.Linear]:
    """Component, name and layer of some attention's queries."""
    component = model.pipeline.denoiser_name
    modules = getattr(stock_pipeline(model.folder), component).named_modules()
    name, layer = next((name, m) for name, m in modules if name.endswith("to_q"))
    return component, name, layer


def refusal(model: Model, tmp_path: Path, content: dict[str, torch.Tensor] | bytes) -> str:
    path = tmp_path / "odd.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write(path, content)
    with pytest.raises(InvalidRequest) as caught:
        LoadedLoras(model.pipeline, tmp_path).use("odd")
    assert caught.value.field == "lora"
    return caught.value.message


def test_a_lora_of_other_shapes_is_refused_with_keys_and_shapes(
    model: Model, tmp_path: Path
) -> None:
    component, name, layer = attention_layer(model)
    out, into = layer.weight.shape
    weights = {name: (torch.zeros(4, into + 1), torch.zeros(out, 4))}
    message = refusal(model, tmp_path, diffusers_keys(component, weights))
    expected = (
        f"{component}.{name}: down [4, {into + 1}], up [{out}, 4], the model has [{out}, {into}]"
    )
    assert expected in message


def test_a_lora_of_another_model_is_refused_with_its_keys(model: Model, tmp_path: Path) -> None:
    component, name, layer = attention_layer(model)
    out, into = layer.weight.shape
    weights = {f"other.{name}": (torch.zeros(4, into), torch.zeros(out, 4))}
    message = refusal(model, tmp_path, diffusers_keys(component, weights))
    assert f"{component}.other.{name}.lora_A.weight [4, {into}]: no such module" in message


def test_half_a_lora_is_refused(model: Model, tmp_path: Path) -> None:
    component, name, layer = attention_layer(model)
    keys = {f"{component}.{name}.lora_A.weight": torch.zeros(4, layer.in_features)}
    assert "up missing" in refusal(model, tmp_path, keys)


def test_a_lora_of_rank_nought_is_refused(model: Model, tmp_path: Path) -> None:
    component, name, layer = attention_layer(model)
    out, into = layer.weight.shape
    keys = diffusers_keys(component, {name: (torch.zeros(0, into), torch.zeros(out, 0))})
    keys[f"{component}.{name}.alpha"] = torch.tensor(1.0)
    assert f"down [0, {into}]" in refusal(model, tmp_path, keys)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"unet.x.oft_blocks": torch.zeros(1)}, "OFT"),
        ({}, "no weights"),
        (b"\x80\x04abcdefghijkl", "a pickle"),
        (b"PK\x03\x04abcdefghijkl", "a zip archive"),
        (b"", "damaged"),
        (b"\x02\0\0\0\0\0\0\0{]", "damaged"),
        (
            b"\x30\0\0\0\0\0\0\0" + b'{"x":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}',
            "damaged",
        ),
    ],
    ids=["oft", "none", "pickle", "zip", "empty", "json", "cut"],
)
def test_what_is_no_lora_is_refused_for_what_it_is(
    model: Model, tmp_path: Path, content: Any, expected: str
) -> None:
    assert expected in refusal(model, tmp_path, content)


@pytest.mark.parametrize(
    "given",
    [
        "style:0.5",
        ["style:0.5"],
        [{"name": "style", "scale": 0.5}],
        LoraChoice("style", 0.5),
        (LoraChoice("style", 0.5),),
    ],
    ids=["text", "texts", "objects", "choice", "choices"],
)
def test_loras_may_be_written_in_several_ways(given: Any) -> None:
    assert SamplingParams(lora=given).lora == (LoraChoice("style", 0.5),)


@pytest.mark.parametrize(
    "given", ["", 7, {"name": 7}, {"name": "a", "scale": "much"}, {"path": "/etc/passwd"}, [None]]
)
def test_what_names_no_lora_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequest, match="lora="):
        SamplingParams(lora=given)


@pytest.mark.parametrize(
    "given", ["a:nan", "a:inf", "a:101", ["a", "a:0.5"], [str(i) for i in range(9)]]
)
def test_loras_beyond_the_limits_are_refused(model: Model, given: Any) -> None:
    params = SamplingParams(**CALL, lora=given)
    with pytest.raises(InvalidRequest, match="lora="):
        resolve(params, model.pipeline.model_info("test"))


def test_a_lora_of_another_family_is_refused_even_if_its_encoder_would_fit(
    model: Model, tmp_path: Path
) -> None:
    component, _, _ = attention_layer(model)
    other = {"unet": "lora_unet_double_blocks_0_img_attn_proj"}.get(
        component, "lora_unet_down_blocks_0_attentions_0_proj_in"
    )
    encoder = random_lora(stock_pipeline(model.folder).text_encoder, "q_proj k_proj")
    named = {f"text_model.{name.removeprefix('text_model.')}": p for name, p in encoder.items()}
    keys = kohya_keys("lora_te1", named)
    keys |= {f"{other}.lora_down.weight": torch.zeros(4, 8)}
    keys |= {f"{other}.lora_up.weight": torch.zeros(8, 4)}
    assert "no such module" in refusal(model, tmp_path, keys)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ink@0.2-0.7", LoraChoice("ink", 1.0, None, 0.2, 0.7)),
        ("ink:0.5@unet@0-.5", LoraChoice("ink", 0.5, "unet", 0.0, 0.5)),
        ({"name": "ink", "start": 0.5}, LoraChoice("ink", start=0.5)),
    ],
)
def test_a_lora_may_apply_to_a_part_of_the_steps(given: Any, expected: LoraChoice) -> None:
    (choice,) = SamplingParams(lora=given).lora
    assert choice == expected
    assert LoraChoice.of(str(choice)) == expected


@pytest.mark.parametrize(
    "given",
    [
        "a@0.5-0.5",
        "a@0.7-0.2",
        {"name": "a", "stop": 1.5},
        {"name": "a", "start": float("nan")},
        ["a@0-0.6", "a@0.5-1"],
    ],
)
def test_spans_that_are_none_or_overlap_are_refused(model: Model, given: Any) -> None:
    with pytest.raises(InvalidRequest, match="lora="):
        resolve(SamplingParams(**CALL, lora=given), model.pipeline.model_info("test"))


def test_a_lora_that_starts_later_does_nothing_before(model: Model) -> None:
    """Of one row of a batch: 4 steps of which the second half has it, at two scales."""
    params = SamplingParams(**{**CALL, **model.guided, "num_inference_steps": 4})
    key = model.loaded.use("attention").key
    late = [LoraUse(key, 1.0, 0.5, 0.75), LoraUse(key, -0.5, 0.75, 1.0)]
    plain, scheduled = start(model.pipeline, params), start(model.pipeline, params, loras=late)
    both, evaluations = [plain, scheduled], left(plain)
    by_hand = start(model.pipeline, params)
    for i in range(evaluations):
        now = [use for use in late if use.start <= i / evaluations < use.stop]
        by_hand.loras = tuple(LoraUse(use.key, use.scale) for use in now)
        model.pipeline.forward(Phase.DENOISE, [by_hand], 1)
        model.pipeline.forward(Phase.DENOISE, both, 1)
        ours, alike = scheduled.running()[1], plain.running()[1]
        torch.testing.assert_close(ours, by_hand.running()[1], rtol=1e-4, atol=1e-4)
        assert torch.allclose(ours, alike, atol=1e-4) == (i < evaluations / 2)


def test_an_encoder_has_what_applies_at_the_first_step(model: Model) -> None:
    late = LoraUse(model.loaded.use("encoder").key, 1.0, 0.5, 1.0)
    assert torch.equal(model.run([late]).latents, model.run().latents)
