"""VAEs under their authors' names become what diffusers' own converters make of them."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLLTXVideo, AutoencoderKLWan
from diffusers.loaders import single_file_utils as library
from full_checkpoints import kl_vae
from original_vaes import dc_vae, ltx_vae, wan_vae
from single_files import Tensors, prefixed

from multimodal_gen.runtime.loader.original.vaes.dc import dc_names
from multimodal_gen.runtime.loader.original.vaes.kl import kl_names
from multimodal_gen.runtime.loader.original.vaes.ltx import ltx_vae_config, ltx_vae_names
from multimodal_gen.runtime.loader.original.vaes.wan import wan_vae_names

LTX: dict[str, dict[str, Any]] = {
    "0.9.0": {},
    "0.9.1": {
        "decoder_block_out_channels": (256, 512, 1024),
        "decoder_layers_per_block": (5, 6, 7, 8),
        "decoder_spatio_temporal_scaling": (True, True, True),
        "decoder_inject_noise": (True, True, True, False),
        "upsample_residual": (True, True, True),
        "upsample_factor": (2, 2, 2),
        "timestep_conditioning": True,
    },
    "0.9.5": {
        "block_out_channels": (128, 256, 512, 1024, 2048),
        "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
        "layers_per_block": (4, 6, 6, 2, 2),
        "spatio_temporal_scaling": (True, True, True, True),
        "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        "decoder_block_out_channels": (256, 512, 1024),
        "decoder_layers_per_block": (5, 5, 5, 5),
        "decoder_spatio_temporal_scaling": (True, True, True),
        "decoder_inject_noise": (False, False, False, False),
        "upsample_residual": (True, True, True),
        "upsample_factor": (2, 2, 2),
        "timestep_conditioning": True,
        "spatial_compression_ratio": 32,
        "temporal_compression_ratio": 8,
    },
}
"""Published versions, where they differ from the class's defaults. 0.9.7's is 0.9.5's."""


def real(kind: Any, **config: Any) -> tuple[Any, Tensors]:
    """A VAE of its real size, without numbers."""
    with init_empty_weights():
        module = kind(**config)
    return module.config, module.state_dict()


def marked(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """A small tensor in place of each, which is told from all others by its numbers."""
    return {
        name: torch.full((3,) + (1,) * (tensor.dim() - 1), float(index))
        if tensor.dim()
        else torch.tensor(float(index))
        for index, (name, tensor) in enumerate(tensors.items())
    }


def numbers(tensors: Mapping[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(tensor.reshape(-1)[0]) for name, tensor in tensors.items()}


def test_stable_diffusions_are_converted_as_diffusers_does() -> None:
    blocks = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    types = {
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
    config, tensors = real(AutoencoderKL, **blocks, **types)
    original = kl_vae(marked(tensors))
    theirs = library.convert_ldm_vae_checkpoint(dict(original), config)
    assert numbers(kl_names(original)) == numbers(theirs)
    assert theirs.keys() == tensors.keys()


def test_wans_are_converted_as_diffusers_does() -> None:
    config, tensors = real(AutoencoderKLWan)
    original = wan_vae(marked(tensors), config)
    theirs = library.convert_wan_vae_to_diffusers(dict(original))
    assert numbers(wan_vae_names(original)) == numbers(theirs)
    assert theirs.keys() == tensors.keys()


def test_sanas_are_converted_as_diffusers_does() -> None:
    types = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    scales = ((),) * 3 + ((5,),) * 3
    layers = {"encoder_layers_per_block": (2,) * 6, "decoder_layers_per_block": (3,) * 6}
    _, tensors = real(
        AutoencoderDC,
        encoder_block_types=types,
        decoder_block_types=types,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        downsample_block_type="Conv",
        upsample_block_type="interpolate",
        **layers,
    )
    original = dc_vae(marked(tensors))
    theirs = library.convert_autoencoder_dc_checkpoint_to_diffusers(dict(original))
    assert numbers(dc_names(original)) == numbers(theirs)
    assert theirs.keys() == tensors.keys()


@pytest.mark.parametrize("version", LTX)
def test_ltx_videos_are_converted_as_diffusers_does(version: str) -> None:
    config, tensors = real(AutoencoderKLLTXVideo, **LTX[version])
    original = ltx_vae(marked(tensors), config)
    before = original["encoder.conv_out.conv.weight"]
    original["encoder.conv_out.conv.weight"] = before.expand(
        3, config.block_out_channels[-1], 1, 1, 1
    )
    theirs = library.convert_ltx_vae_checkpoint_to_diffusers(prefixed(original, "vae."))
    assert numbers(ltx_vae_names(original)) == numbers(theirs)


@pytest.mark.parametrize("version", LTX)
def test_an_ltx_videos_tensors_show_its_config(version: str) -> None:
    config, tensors = real(AutoencoderKLLTXVideo, **LTX[version])
    shapes = {name: tuple(t.shape) for name, t in ltx_vae(tensors, config).items()}
    found = ltx_vae_config(shapes, {})
    expected = {**dict(config), "spatial_compression_ratio": 32, "temporal_compression_ratio": 8}
    plain = {key: list(each) if isinstance(each, tuple) else each for key, each in expected.items()}
    down = len(config["down_block_types"])
    plain["downsample_type"] = list(config["downsample_type"])[:down]
    assert found == {key: plain[key] for key in found}
