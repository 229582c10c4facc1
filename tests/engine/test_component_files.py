"""Components in separate files, and those that a single file has besides its denoiser."""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from denoisers import differences, load_denoiser
from engineless import run
from full_checkpoints import sdxl
from original_vaes import ORIGINAL_VAES
from parity import check_same_picture
from single_files import Tensors, flux, prefixed, renamed, weights, write, write_gguf
from whole_files import ENCODERS, encoder, whole_file

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.registry import load_pipeline

Checkpoints = Callable[..., Path]
UNUSED = r"not used: .*(mean-of-stds|norm_final\.weight|pos_embed, .*y_embedding)$"
"""What files of LTX-Video, Z-Image, PixArt and Sana have and no model uses."""


def load(
    folder: Path, file: Path | None = None, files: Mapping[str, Path] | None = None
) -> ComposedPipeline:
    return load_pipeline(
        folder,
        device=torch.device("cpu"),
        dtype=torch.float32,
        mesh=Mesh(),
        file=file,
        component_files=files,
    )


def component(
    folder: Path, name: str, file: Path | None = None, dtype: torch.dtype = torch.float32
) -> torch.nn.Module:
    checkpoint = Checkpoint.open(folder, None, {name: file} if file else None)
    module = checkpoint.load(name, dtype, torch.device("cpu"))
    assert isinstance(module, torch.nn.Module)
    return module


@pytest.mark.parametrize("prefix", ["", "vae.", "first_stage_model."])
@pytest.mark.parametrize("name", ORIGINAL_VAES)
def test_a_vae_under_its_authors_names_is_the_folders(
    name: str, prefix: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    file = write(tmp_path / "vae.sft", prefixed(ORIGINAL_VAES[name](folder), prefix))
    assert differences(component(folder, "vae"), component(folder, "vae", file)) == []


@pytest.mark.parametrize("name", ORIGINAL_VAES)
def test_a_vae_under_diffusers_names_is_the_folders(
    name: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    file = write(tmp_path / "vae.safetensors", weights(folder, "vae"))
    assert differences(component(folder, "vae"), component(folder, "vae", file)) == []


def test_a_vae_under_diffusers_old_names_is_the_folders(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    """As in stabilityai/sd-vae-ft-mse."""
    folder = checkpoints("sd15")
    table = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    file = write(tmp_path / "vae.safetensors", renamed(weights(folder, "vae"), table))
    assert differences(component(folder, "vae"), component(folder, "vae", file)) == []


def test_a_counter_of_training_may_be_missing(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints("flux2-klein")
    tensors = weights(folder, "vae")
    del tensors["bn.num_batches_tracked"]
    file = write(tmp_path / "vae.safetensors", tensors)
    assert differences(component(folder, "vae"), component(folder, "vae", file)) == []


@pytest.mark.parametrize("prefix", ["", "text_encoders.x.transformer.", "text_encoder."])
@pytest.mark.parametrize(
    ("name", "encoder_name"), [(name, each) for name, own in ENCODERS.items() for each in own]
)
def test_a_text_encoder_in_a_file_is_the_folders(
    name: str, encoder_name: str, prefix: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    file = write(tmp_path / "encoder.sft", prefixed(encoder(folder, encoder_name), prefix))
    own, others = component(folder, encoder_name, file), component(folder, encoder_name)
    assert differences(own, others) == []


@pytest.mark.parametrize("name", ["qwenimage21", "krea2"])
@pytest.mark.parametrize("outer", ["model.language_model.", "model.", ""])
def test_a_qwen3_vl_in_a_file_is_the_folders(
    name: str, outer: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    plain = {key.removeprefix("model."): t for key, t in weights(folder, "text_encoder").items()}
    seen = outer.partition("language_model")[0] if "language" in outer else ""
    tensors = {
        key.replace("language_model.", outer, 1) if key.startswith("language") else seen + key: t
        for key, t in plain.items()
    }
    file = write(tmp_path / "qwen3vl.safetensors", tensors)
    own, others = component(folder, "text_encoder", file), component(folder, "text_encoder")
    assert differences(own, others) == []


def test_a_vae_of_qwen_image_21_in_a_file_is_the_folders(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("qwenimage21")
    file = write(tmp_path / "vae.safetensors", weights(folder, "vae"))
    assert differences(component(folder, "vae"), component(folder, "vae", file)) == []


def test_an_image_encoder_in_a_file_is_the_folders(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("wan-i2v")
    tensors = encoder(folder, "image_encoder") | {"visual_projection.weight": torch.ones(8, 32)}
    file = write(tmp_path / "clip_vision_h.safetensors", tensors)
    own, others = component(folder, "image_encoder", file), component(folder, "image_encoder")
    assert differences(own, others) == []


@pytest.fixture
def empty(checkpoints: Checkpoints, tmp_path: Path) -> Callable[[str], Path]:
    """Copies a tiny checkpoint without weights, but those of an image encoder."""

    def copied(name: str) -> Path:
        folder = Path(shutil.copytree(checkpoints(name), tmp_path / "empty"))
        for path in folder.glob("*/*.safetensors"):
            if path.parent.name != "image_encoder":
                path.unlink()
        return folder

    return copied


@pytest.mark.parametrize("name", ENCODERS)
def test_all_that_a_single_file_has_is_used_in_every_family(
    name: str,
    checkpoints: Checkpoints,
    empty: Callable[[str], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = checkpoints(name)
    file = write(tmp_path / "whole.safetensors", whole_file(name, folder))
    whole, single = load(folder), load(empty(name), file)
    modules = {
        component: module
        for component, module in whole.components.items()
        if isinstance(module, torch.nn.Module)
    }
    assert {*ENCODERS[name], "vae"} < modules.keys()
    for component_name, module in modules.items():
        assert differences(module, single.components[component_name]) == []
    unused = [record for record in caplog.records if not re.search(UNUSED, record.getMessage())]
    assert unused == []


SMALL = SamplingParams(prompt="a heart", width=64, height=64, num_inference_steps=2)


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "wan-i2v"])
def test_an_empty_vae_in_a_single_file_makes_a_flat_picture(
    name: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    tensors = whole_file(name, folder)
    zeros = {key: torch.zeros_like(t) for key, t in tensors.items() if key.startswith("vae.")}
    pipeline = load(folder, write(tmp_path / "zero.safetensors", tensors | zeros))
    frames = 9 if "num_frames" in pipeline.model_info("x").parameters else None
    assert np.ptp(run(pipeline, replace(SMALL, num_frames=frames)).pixels) == 0


def test_two_experts_have_a_file_each(
    checkpoints: Checkpoints, empty: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, bare = checkpoints("wan22"), empty("wan22")
    names = ("transformer", "transformer_2")
    files = {
        name: write_gguf(tmp_path / f"{index}.gguf", weights(folder, name))
        for index, name in enumerate(names)
    }
    for name in names:
        own, others = load_denoiser(bare, files=files, name=name), load_denoiser(folder, name=name)
        assert differences(own, others) == []


def test_an_expert_of_a_single_file_is_the_one_without_a_file(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("wan22")
    first, second = (
        write(tmp_path / f"{name}.safetensors", weights(folder, name))
        for name in ("transformer", "transformer_2")
    )
    opened = Checkpoint.open(folder, first, {"transformer_2": second})
    assert {name: each.header.path for name, each in opened.files.items()} == {
        "transformer": first,
        "transformer_2": second,
    }


@pytest.mark.parametrize(
    ("file_name", "component"),
    [("ref2va.safetensors", "transformer_ref"), ("h3.sft", "transformer")],
)
def test_a_file_for_references_says_so_in_its_name(
    checkpoints: Checkpoints, tmp_path: Path, file_name: str, component: str
) -> None:
    folder = checkpoints("minimax-h3")
    file = write(tmp_path / file_name, weights(folder, component))
    assert Checkpoint.open(folder, file).files.keys() == {component}


WRONG = [
    ("vae", "text_encoder_2", "holds a T5 text encoder; must be of class AutoencoderKL"),
    ("text_encoder", "text_encoder_2", "holds a T5 text encoder; must be of class CLIPTextModel"),
    ("text_encoder", "vae", "holds a VAE of Stable Diffusion's kind"),
    ("vae", "transformer", "holds the transformer of FLUX.1"),
    ("transformer", "vae", "must be of class FluxTransformer2DModel"),
    ("tokenizer", "vae", "tokenizer must be one of text_encoder, text_encoder_2, transformer, vae"),
    ("x", "vae", "component=x=file.safetensors: x must be one of text_encoder"),
]


@pytest.mark.parametrize(("name", "holds", "said"), WRONG, ids=lambda value: value[:20])
def test_a_file_of_another_component_says_what_it_is(
    name: str, holds: str, said: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("flux-dev")
    tensors = flux(folder) if holds == "transformer" else encoder(folder, holds)
    file = write(tmp_path / "file.safetensors", tensors)
    with pytest.raises(InvalidCheckpoint, match=re.escape(said)):
        Checkpoint.open(folder, None, {name: file})


def test_a_component_is_taken_out_of_a_file_of_several(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("sd3")
    file = write(tmp_path / "sd3.safetensors", whole_file("sd3", folder))
    for name in ("vae", *ENCODERS["sd3"]):
        assert differences(component(folder, name), component(folder, name, file)) == []


def test_what_is_not_used_of_a_file_is_named(
    checkpoints: Checkpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoints("flux-dev")
    tensors = {
        **whole_file("flux-dev", folder),
        "model_ema.decay": torch.ones(()),
        "text_encoders.clip_l.logit_scale": torch.ones(()),
        "vae.loss.logvar": torch.ones(()),
        **prefixed(encoder(checkpoints("zimage"), "text_encoder"), "text_encoders.qwen3_4b."),
        **prefixed(ORIGINAL_VAES["wan"](checkpoints("wan")), "first_stage_model."),
    }
    load(folder, write(tmp_path / "x.safetensors", tensors))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 4
    assert {
        "x.safetensors: not used: model_ema.decay, text_encoders.clip_l.logit_scale",
        "vae in x.safetensors: not used: loss.logvar",
    } < set(told)
    assert any("text_encoders.qwen3_4b. (a Qwen3 text encoder)" in each for each in told)
    assert any("first_stage_model. (a VAE of Wan or Qwen-Image)" in each for each in told)


def test_the_vae_of_another_version_brings_its_config(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    older, newer = checkpoints("ltx"), checkpoints("ltx-0.9.1")
    file = write(tmp_path / "ltx.safetensors", whole_file("ltx-0.9.1", newer))
    mixed, own = load(older, file), load(newer)
    assert differences(mixed.components["vae"], own.components["vae"]) == []
    assert "decode_timestep" in mixed.model_info("x").parameters
    params = replace(SMALL, num_frames=9)
    check_same_picture(run(mixed, params), run(own, params))


def original_umt5(folder: Path) -> Tensors:
    """Under the names in Wan-Video/Wan2.1."""
    table = {
        "encoder.final_layer_norm": "norm",
        "encoder.block.": "blocks.",
        "layer.0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
        "layer.0.SelfAttention": "attn",
        "layer.0.layer_norm": "norm1",
        "layer.1.layer_norm": "norm2",
        "layer.1.DenseReluDense.wi_0": "ffn.gate.0",
        "layer.1.DenseReluDense.wi_1": "ffn.fc1",
        "layer.1.DenseReluDense.wo": "ffn.fc2",
        "shared": "token_embedding",
    }
    return renamed(weights(folder, "text_encoder"), table)


def whole_t5(folder: Path) -> Tensors:
    """With its decoder, and the embedding under the encoder's name."""
    tensors = renamed(weights(folder, "text_encoder_2"), {"shared": "encoder.embed_tokens"})
    decoder = {"decoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(2, 2)}
    return tensors | decoder | {"lm_head.weight": torch.ones(2, 2)}


def llava(folder: Path) -> Tensors:
    tensors = prefixed(encoder(folder, "text_encoder"), "language_model.")
    return tensors | {"vision_tower.vision_model.x": torch.ones(2)}


def saved_by_clip_save(folder: Path) -> Tensors:
    """With the projection as OpenCLIP has it, which older versions of ComfyUI left so."""
    tensors = encoder(folder, "text_encoder_2")
    return tensors | {"text_projection": tensors.pop("text_projection.weight").T}


def open_clip(folder: Path) -> Tensors:
    whole = prefixed(sdxl(folder), "")
    prefix = "conditioner.embedders.1.model."
    return {k.removeprefix(prefix): t for k, t in whole.items() if k.startswith(prefix)}


@pytest.mark.parametrize(
    ("name", "encoder_name", "make"),
    [
        ("wan", "text_encoder", original_umt5),
        ("flux-dev", "text_encoder_2", whole_t5),
        ("hunyuan-video", "text_encoder", llava),
        ("sdxl", "text_encoder_2", saved_by_clip_save),
        ("sdxl", "text_encoder_2", open_clip),
    ],
)
def test_other_names_of_text_encoders_are_known(
    name: str,
    encoder_name: str,
    make: Callable[[Path], Tensors],
    checkpoints: Checkpoints,
    tmp_path: Path,
) -> None:
    folder = checkpoints(name)
    file = write(tmp_path / "encoder.safetensors", make(folder))
    own, others = component(folder, encoder_name, file), component(folder, encoder_name)
    assert differences(own, others) == []


def test_a_text_encoder_in_float8_is_its_numbers(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """As ComfyUI's scaled files of UMT5 are, with the tokenizer inside."""
    folder = checkpoints("wan")
    low = {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
    low["spiece_model"] = torch.zeros(100, dtype=torch.uint8)
    exact = {}
    for name, tensor in weights(folder, "text_encoder").items():
        low[name] = exact[name] = tensor
        if "SelfAttention" in name and tensor.dim() == 2 and "bias" not in name:
            low[name] = (tensor * 8).to(torch.float8_e4m3fn)
            low[name.replace(".weight", ".scale_weight")] = torch.tensor(0.125)
            exact[name] = low[name].float() * 0.125
    files = (write(tmp_path / f"{at}.sft", each) for at, each in enumerate((low, exact)))
    one, other = (component(folder, "text_encoder", file) for file in files)
    ids = torch.arange(8)[None]
    assert torch.allclose(one(ids)[0], other(ids)[0], rtol=1e-5, atol=1e-5)


def test_a_class_without_names_of_its_own_takes_diffusers_names(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoints("cogvideox")
    module = "multimodal_gen.checkpoints.single_file"
    monkeypatch.setattr(f"{module}._is_known", lambda class_name: False)
    file = write(tmp_path / "vae.safetensors", weights(folder, "vae"))
    assert differences(component(folder, "vae"), component(folder, "vae", file)) == []
