"""Every tensor of a LoRA file is used, is named as without effect, or has the file refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engineless import load
from loras import diffusers_keys, kohya_keys, peft_folder, random_lora, write
from tiny_checkpoints import stock_pipeline
from torch import Tensor

from multimodal_gen.checkpoints.lora.folder import LoraFolder
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.layers.lora import Lora
from multimodal_gen.runtime.layers.lora_terms import Difference, LowRank
from multimodal_gen.runtime.pipelines.adapter_readers import lora_reader
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

Keys = dict[str, Tensor]
Checkpoints = Callable[..., Path]


def read(pipeline: ComposedPipeline, keys: Keys, folder: Path, name: str = "ink") -> Lora:
    write(folder / f"{name}.safetensors", keys)
    return lora_reader(pipeline).read(LoraFolder(folder).find(name))


def refusal(pipeline: ComposedPipeline, keys: Keys, folder: Path) -> str:
    with pytest.raises(InvalidRequest, match="lora='ink'") as caught:
        read(pipeline, keys, folder)
    return caught.value.message


def low_rank(name: str, out: int, into: int) -> Keys:
    return {
        f"{name}.lora_down.weight": torch.ones(4, into),
        f"{name}.lora_up.weight": torch.ones(out, 4),
    }


def scales(lora: Lora) -> list[float]:
    return [term.scale for terms in lora.terms.values() for term in terms]


@pytest.fixture(scope="module")
def flux(checkpoints: Checkpoints) -> ComposedPipeline:
    return load(checkpoints("flux-dev"))


@pytest.fixture(scope="module")
def wan(checkpoints: Checkpoints) -> ComposedPipeline:
    return load(checkpoints("wan"))


def width(pipeline: ComposedPipeline) -> int:
    config = getattr(pipeline.denoiser_module, "config")  # noqa: B009
    return int(config.inner_dim)


def test_kohyas_alpha_of_fluxs_last_layer_counts(flux: ComposedPipeline, tmp_path: Path) -> None:
    dim = width(flux)
    keys = low_rank("lora_unet_final_layer_adaLN_modulation_1", 2 * dim, dim)
    keys["lora_unet_final_layer_adaLN_modulation_1.alpha"] = torch.tensor(1.0)
    assert scales(read(flux, keys, tmp_path)) == [0.25]


@pytest.mark.parametrize("prefix", ["lora_te2", "lora_te3"])
def test_t5_of_flux_is_found_by_kohyas_and_onetrainers_number(
    flux: ComposedPipeline, prefix: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    weights = random_lora(
        stock_pipeline(checkpoints("flux-dev")).text_encoder_2, "Attention.q wi_0"
    )
    lora = read(flux, kohya_keys(prefix, weights), tmp_path)
    assert lora.warnings == ()
    assert lora.of_encoders
    encoder = set(flux.components["text_encoder_2"].modules())
    assert len(lora.terms) == len(weights)
    assert encoder.issuperset(lora.terms)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_comfyuis_names_of_text_encoders_are_known(
    number: int, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("sd3")
    component = "text_encoder" if number == 1 else f"text_encoder_{number}"
    name = ("clip_l", "clip_g", "t5xxl")[number - 1]
    weights = random_lora(getattr(stock_pipeline(folder), component), "q_proj Attention.q")
    pipeline = load(folder)
    lora = read(pipeline, diffusers_keys(f"text_encoders.{name}.transformer", weights), tmp_path)
    assert set(pipeline.components[component].modules()).issuperset(lora.terms)


def test_the_t5_of_sd3_is_named_where_the_checkpoint_lacks_it(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("sd3-without-t5")
    keys = kohya_keys("lora_te1", random_lora(stock_pipeline(folder).text_encoder, "q_proj"))
    module = "lora_te3_encoder_block_0_layer_0_SelfAttention_q"
    keys |= low_rank(module, 8, 8)
    lora = read(load(folder), keys, tmp_path)
    assert lora.terms
    assert lora.warnings == (
        f"lora='ink': {module}.lora_down.weight, {module}.lora_up.weight: without effect, as this "
        "checkpoint has no such text encoder",
    )


def test_embeddings_in_onetrainers_files_are_named(flux: ComposedPipeline, tmp_path: Path) -> None:
    dim = width(flux)
    keys = low_rank("lora_transformer_transformer_blocks_0_attn_to_q", dim, dim)
    lora = read(flux, {**keys, "bundle_emb.thing.clip_l": torch.ones(2, 8)}, tmp_path)
    assert len(lora.terms) == 1
    assert lora.warnings == (
        "lora='ink': bundle_emb.thing.clip_l: without effect, as embeddings for words of the "
        "prompt are not supported",
    )


@pytest.mark.parametrize(
    "name", ["diffusion_model.blocks.0.cross_attn.{}_img", "lora_unet_blocks_0_cross_attn_{}_img"]
)
def test_an_image_to_video_lora_applies_without_its_image_part(
    wan: ComposedPipeline, name: str, tmp_path: Path
) -> None:
    dim = width(wan)
    image = {
        key: t for letter in "kv" for key, t in low_rank(name.format(letter), dim, dim).items()
    }
    rest = low_rank(name.replace("{}_img", "q"), dim, dim)
    if name.startswith("diffusion"):
        image["diffusion_model.blocks.0.cross_attn.norm_k_img.diff"] = torch.ones(dim)
        image["diffusion_model.img_emb.proj.1.diff_b"] = torch.ones(dim)
    lora = read(wan, image | rest, tmp_path)
    (module,) = lora.terms
    assert module is wan.denoiser_module.get_submodule("blocks.0.cross.q")
    (warning,) = lora.warnings
    assert set(image) == set(warning.removeprefix("lora='ink': ").split(": ")[0].split(", "))
    assert warning.endswith("without effect, as this model has no such modules")


def test_the_patches_of_an_image_to_video_lora_are_named(
    wan: ComposedPipeline, tmp_path: Path
) -> None:
    dim = width(wan)
    patches = {"diffusion_model.patch_embedding.diff": torch.ones(dim, 36, 1, 2, 2)}
    rest = low_rank("diffusion_model.blocks.0.cross_attn.q", dim, dim)
    lora = read(wan, patches | rest, tmp_path)
    assert len(lora.terms) == 1
    assert lora.warnings == (
        "lora='ink': diffusion_model.patch_embedding.diff: without effect, as this model has "
        "other inputs there",
    )


def test_an_image_to_video_lora_for_more_blocks_is_refused(
    wan: ComposedPipeline, tmp_path: Path
) -> None:
    keys = low_rank("diffusion_model.blocks.77.cross_attn.k_img", 8, 8)
    assert "blocks.77.cross_attn.k_img.lora_down.weight [4, 8]: no such module" in refusal(
        wan, keys, tmp_path
    )


def test_a_file_with_nothing_for_the_model_is_refused(
    wan: ComposedPipeline, tmp_path: Path
) -> None:
    dim = width(wan)
    keys = low_rank("diffusion_model.blocks.0.cross_attn.k_img", dim, dim)
    assert "has no weights for this model; diffusion_model.blocks.0" in refusal(wan, keys, tmp_path)


def test_the_guidance_embedding_of_dev_is_named_on_schnell(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    schnell = load(checkpoints("flux-schnell"))
    dim = width(schnell)
    keys = low_rank("lora_unet_guidance_in_in_layer", dim, 256)
    keys |= low_rank("lora_unet_double_blocks_0_img_attn_proj", dim, dim)
    (warning,) = read(schnell, keys, tmp_path).warnings
    assert "lora_unet_guidance_in_in_layer.lora_down.weight" in warning


def test_an_alpha_alone_is_named(flux: ComposedPipeline, tmp_path: Path) -> None:
    dim = width(flux)
    keys = low_rank("lora_unet_double_blocks_0_img_attn_proj", dim, dim)
    keys["lora_unet_double_blocks_0_txt_attn_proj.alpha"] = torch.tensor(1.0)
    (warning,) = read(flux, keys, tmp_path).warnings
    assert "lora_unet_double_blocks_0_txt_attn_proj.alpha: without effect" in warning


def test_an_alpha_beside_a_difference_is_named(wan: ComposedPipeline, tmp_path: Path) -> None:
    name = "diffusion_model.blocks.0.self_attn.q"
    keys = {f"{name}.diff_b": torch.ones(width(wan)), f"{name}.alpha": torch.tensor(0.5)}
    lora = read(wan, keys, tmp_path)
    assert scales(lora) == [1.0]
    assert lora.warnings == (
        f"lora='ink': {name}.alpha: without effect, as there are no low-rank weights beside it",
    )


def test_the_bias_of_a_lora_counts_without_its_weights(
    wan: ComposedPipeline, tmp_path: Path
) -> None:
    name = "diffusion_model.blocks.0.self_attn.q"
    keys = low_rank(name, width(wan), width(wan))
    keys[f"{name}.lora_up.weight"].zero_()
    keys |= {f"{name}.lora_up.bias": torch.ones(width(wan)), f"{name}.alpha": torch.tensor(2.0)}
    (terms,) = read(wan, keys, tmp_path).terms.values()
    assert [(type(term), term.scale) for term in terms] == [(Difference, 0.5)]
    del keys[f"{name}.lora_up.weight"], keys[f"{name}.lora_down.weight"]
    assert "down missing, up missing" in refusal(wan, keys, tmp_path)


def test_two_tensors_for_one_part_of_a_module_are_refused(
    flux: ComposedPipeline, tmp_path: Path
) -> None:
    dim = width(flux)
    keys = low_rank("lora_unet_double_blocks_0_img_attn_proj", dim, dim)
    keys |= low_rank("transformer.transformer_blocks.0.attn.to_out.0", dim, dim)
    assert "transformer_blocks.0.attn.to_out.0.lora_" in refusal(flux, keys, tmp_path)


@pytest.mark.parametrize(
    ("suffix", "what"),
    [
        ("lokr_w1", "lokr"),
        ("hada_w1_a", "hada"),
        ("dora_scale", "dora_scale [1]"),
        ("lora_magnitude_vector", "norms [1]"),
        ("oft_blocks", "OFT"),
        ("a1.weight", "GLoRA"),
        ("lora_mid.weight", "mid [1]"),
        ("set_weight", "replace"),
        ("reshape_weight", "another shape"),
        ("scale_shift", "no such module"),
    ],
)
@pytest.mark.parametrize("prefix", ["lora_unet_double_blocks_0_img_attn_proj", "lycoris_proj_out"])
def test_another_form_or_half_of_one_is_refused_with_its_keys(
    flux: ComposedPipeline, prefix: str, suffix: str, what: str, tmp_path: Path
) -> None:
    dim = width(flux)
    keys = low_rank("lora_unet_double_blocks_0_img_attn_proj", dim, dim)
    message = refusal(flux, {**keys, f"{prefix}.{suffix}": torch.ones(1)}, tmp_path)
    assert what in message
    assert f"{prefix}.{suffix}" in message


def test_low_rank_weights_for_a_norm_are_refused(wan: ComposedPipeline, tmp_path: Path) -> None:
    keys = low_rank("diffusion_model.blocks.0.norm3", width(wan), 1)
    assert "blocks.0.norm2: low-rank weights can't be applied to it" in refusal(wan, keys, tmp_path)


def test_a_bias_for_a_norm_without_one_is_refused(wan: ComposedPipeline, tmp_path: Path) -> None:
    keys = {"diffusion_model.blocks.0.self_attn.norm_q.diff_b": torch.ones(width(wan))}
    assert "blocks.0.attn1.norm_q: it has no bias" in refusal(wan, keys, tmp_path)


def test_differences_of_nought_cost_nothing(wan: ComposedPipeline, tmp_path: Path) -> None:
    dim = width(wan)
    keys = low_rank("diffusion_model.blocks.0.self_attn.q", dim, dim)
    keys["diffusion_model.blocks.0.self_attn.q.diff_b"] = torch.zeros(dim)
    lora = read(wan, keys, tmp_path)
    (terms,) = lora.terms.values()
    assert [type(term) for term in terms] == [LowRank]
    assert lora.warnings == ()


@pytest.mark.parametrize("pattern", ["{}", "transformer.{}", "^transformer.{}"])
@pytest.mark.parametrize("inside", [False, True], ids=["adapter_config", "metadata"])
def test_an_alpha_pattern_may_name_the_component(
    flux: ComposedPipeline, pattern: str, inside: bool, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    weights = random_lora(stock_pipeline(checkpoints("flux-dev")).transformer, "attn.to_q")
    odd = min(weights)
    config = {"lora_alpha": 4, "alpha_pattern": {pattern.format(odd): 1}}
    if inside:
        packed = {f"transformer.{key}": value for key, value in config.items()}
        metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(packed)}
        write(tmp_path / "ink.safetensors", diffusers_keys("transformer", weights), metadata)
    else:
        peft_folder(tmp_path / "ink", weights, **config)
    lora = lora_reader(flux).read(LoraFolder(tmp_path).find("ink"))
    assert lora.warnings == ()
    assert sorted(scales(lora)) == [0.25] + [1.0] * (len(weights) - 1)


def test_an_alpha_pattern_may_have_the_name_that_the_file_has(
    flux: ComposedPipeline, tmp_path: Path
) -> None:
    dim = width(flux)
    peft_folder(
        tmp_path / "ink",
        {
            name: (torch.ones(4, dim), torch.ones(dim, 4))
            for name in ("double_blocks.0.img_attn.proj", "double_blocks.0.txt_attn.proj")
        },
        alpha_pattern={"img_attn.proj": 1},
    )
    lora = lora_reader(flux).read(LoraFolder(tmp_path).find("ink"))
    assert sorted(scales(lora)) == [0.25, 1.0]


def test_an_alpha_pattern_that_matches_nothing_is_named(
    flux: ComposedPipeline, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    weights = random_lora(stock_pipeline(checkpoints("flux-dev")).transformer, "attn.to_q")
    peft_folder(tmp_path / "ink", weights, alpha_pattern={"unet.mid_block.x": 1})
    lora = lora_reader(flux).read(LoraFolder(tmp_path).find("ink"))
    assert lora.warnings == (
        "lora='ink': alpha_pattern: 'unet.mid_block.x': without effect, as not found",
    )


def test_long_names_are_cut_in_what_is_said_of_them(flux: ComposedPipeline, tmp_path: Path) -> None:
    keys = low_rank("diffusion_model." * 2000 + "x", 8, 8)
    assert len(refusal(flux, keys, tmp_path)) < 1000


MODULE = "lora_unet_double_blocks_0_img_attn_proj"


@pytest.mark.parametrize(
    "alpha", [torch.tensor(float("nan")), torch.tensor(float("-inf")), torch.ones(4), torch.ones(0)]
)
def test_an_alpha_that_is_no_number_is_refused_by_name(
    flux: ComposedPipeline, alpha: Tensor, tmp_path: Path
) -> None:
    keys = low_rank(MODULE, width(flux), width(flux)) | {f"{MODULE}.alpha": alpha}
    assert f"{MODULE}.alpha {[*alpha.shape]}: must be one finite number" in refusal(
        flux, keys, tmp_path
    )


@pytest.mark.parametrize("part", ["lora_down.weight", "lora_up.weight", "diff_b"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(
    flux: ComposedPipeline, part: str, value: float, tmp_path: Path
) -> None:
    keys = low_rank(MODULE, width(flux), width(flux))
    keys[f"{MODULE}.diff_b"] = torch.ones(width(flux))
    keys[f"{MODULE}.{part}"][0] = value
    assert f"{MODULE}: its numbers are not finite" in refusal(flux, keys, tmp_path)


def test_numbers_too_large_for_the_models_data_type_are_refused(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    pipeline = load(checkpoints("flux-dev"), torch.float16)
    keys = low_rank(MODULE, width(pipeline), width(pipeline))
    keys[f"{MODULE}.lora_up.weight"] *= 1e6
    assert "too large for torch.float16" in refusal(pipeline, keys, tmp_path)


@pytest.mark.parametrize("part", ["lora_down.weight", "lora_up.weight", "diff"])
def test_a_part_without_dimensions_is_refused_by_name(
    flux: ComposedPipeline, part: str, tmp_path: Path
) -> None:
    keys = low_rank(MODULE, width(flux), width(flux)) | {f"{MODULE}.{part}": torch.tensor(1.0)}
    assert f"{MODULE}.{part}: must have dimensions" in refusal(flux, keys, tmp_path)


@pytest.mark.parametrize(
    ("words", "stored"),
    [
        ("attn1.to_q", lambda part: part[..., None, None]),
        ("proj_in", lambda part: part.flatten(1)),
        ("conv1", lambda part: part.flatten(1)),
    ],
    ids=["matrix as kernel", "kernel as matrix", "kernel as flat matrix"],
)
def test_weights_are_taken_with_another_number_of_dimensions(
    checkpoints: Checkpoints, words: str, stored: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    folder = checkpoints("sd15")
    weights = random_lora(stock_pipeline(folder).unet, words)
    pipeline = load(folder)
    plain = read(pipeline, diffusers_keys("unet", weights), tmp_path)
    shaped = {name: (stored(down), stored(up)) for name, (down, up) in weights.items()}
    other = read(pipeline, diffusers_keys("unet", shaped), tmp_path)
    assert len(plain.terms) == len(weights)
    for module, (term,) in plain.terms.items():
        (same,) = other.terms[module]
        for ours, theirs in zip(term.tensors, same.tensors, strict=True):
            assert ours is theirs is None or torch.equal(ours, theirs)  # type: ignore[arg-type]


def test_the_names_of_wans_fun_models_have_two_underscores(
    wan: ComposedPipeline, tmp_path: Path
) -> None:
    keys = low_rank("lora_unet__blocks_0_cross_attn_q", width(wan), width(wan))
    (module,) = read(wan, keys, tmp_path).terms
    assert module is wan.denoiser_module.get_submodule("blocks.0.cross.q")


def test_a_target_says_for_which_encoder_keys_without_a_component_are(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("sdxl")
    pipeline = load(folder)
    peft_folder(tmp_path / "ink", random_lora(stock_pipeline(folder).text_encoder_2, "q_proj"))
    file = LoraFolder(tmp_path).find("ink")
    lora = lora_reader(pipeline).read(file, "text_encoder_2")
    assert lora.terms
    assert set(pipeline.components["text_encoder_2"].modules()).issuperset(lora.terms)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lora_alpha": "x"}, "lora_alpha='x' must be a finite number"),
        ({"lora_alpha": None}, "lora_alpha=None must be a finite number"),
        ({"lora_alpha": float("nan")}, "lora_alpha=nan must be a finite number"),
        ({"lora_alpha": 10**400}, "must be a finite number"),
        ({"alpha_pattern": "x"}, "alpha_pattern='x' must be an object"),
        ({"alpha_pattern": {"img_attn.proj": [1]}}, "img_attn.proj=[1] must be a finite number"),
        ({"use_dora": True}, "use_dora: no lora_magnitude_vector for "),
        ({"peft_type": "OFT"}, "is OFT; only LoRA, LoHa and LoKr"),
        ({"rank_pattern": {"img_attn.proj": "x"}}, "img_attn.proj='x' must be a finite number"),
        ({"init_lora_weights": "pissa_niter_4"}, "belongs to changed weights"),
        ({"init_lora_weights": "OLoRA"}, "belongs to changed weights"),
    ],
)
@pytest.mark.parametrize("inside", [False, True], ids=["adapter_config", "metadata"])
def test_a_config_that_gives_no_weights_is_refused_by_its_field(
    flux: ComposedPipeline, config: dict[str, object], message: str, inside: bool, tmp_path: Path
) -> None:
    """Of LoRAs that start from parts of the model's weights, PEFT changes those weights too."""
    dim = width(flux)
    name = "double_blocks.0.img_attn.proj"
    weights = {name: (torch.ones(4, dim), torch.ones(dim, 4))}
    if inside:
        packed = {f"transformer.{key}": value for key, value in config.items()}
        metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(packed)}
        write(tmp_path / "ink.safetensors", diffusers_keys("diffusion_model", weights), metadata)
        where = "lora_adapter_metadata: transformer: "
    else:
        peft_folder(tmp_path / "ink", weights, **config)
        where = "adapter_config.json: "
    with pytest.raises(InvalidRequest) as caught:
        lora_reader(flux).read(LoraFolder(tmp_path).find("ink"))
    assert where in caught.value.message or "use_dora" in config
    assert message in caught.value.message


@pytest.mark.parametrize("content", ["{", "[]", "null", '"x"'])
def test_metadata_that_is_no_object_is_refused(
    flux: ComposedPipeline, content: str, tmp_path: Path
) -> None:
    keys = low_rank(MODULE, width(flux), width(flux))
    write(tmp_path / "ink.safetensors", keys, {"lora_adapter_metadata": content})
    with pytest.raises(InvalidRequest, match="lora_adapter_metadata: "):
        lora_reader(flux).read(LoraFolder(tmp_path).find("ink"))


@pytest.mark.parametrize("kind", ["lora_A.weight", "other", "lora_A"])
def test_names_that_a_terminal_would_obey_are_escaped(
    flux: ComposedPipeline, kind: str, tmp_path: Path
) -> None:
    keys = {f"a\n\x1b[31m.{kind}": torch.ones(2, dtype=torch.int8 if kind == "other" else None)}
    message = refusal(flux, keys, tmp_path)
    assert message.isprintable()
    assert "a\\n\\x1b[31m." in message


def test_a_long_name_of_a_wrong_type_is_cut(flux: ComposedPipeline, tmp_path: Path) -> None:
    keys = {"x" * 100_000: torch.ones(2, dtype=torch.int8)}
    assert len(refusal(flux, keys, tmp_path)) < 5000


@pytest.mark.parametrize("titled", [False, True], ids=["name", "title"])
def test_results_say_what_their_lora_was_made_for(
    flux: ComposedPipeline, titled: bool, tmp_path: Path
) -> None:
    name = "FLUX.1-Turbo-Alpha"
    stem = "fast" if titled else name
    keys = low_rank(MODULE, width(flux), width(flux))
    write(tmp_path / f"{stem}.safetensors", keys, {"modelspec.title": name} if titled else None)
    lora = lora_reader(flux).read(LoraFolder(tmp_path).find(stem))
    assert lora.warnings == (
        f"lora={stem!r}: was made for num_inference_steps=8, guidance_scale=3.5: used where a "
        "request leaves parameters open",
    )
