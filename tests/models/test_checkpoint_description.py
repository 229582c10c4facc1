"""A checkpoint says what it is, and what is wrong with it, before any of it is loaded."""

import json
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from full_checkpoints import sdxl, vae
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from single_files import COMFY, ORIGINAL, Tensors, flux, prefixed, weights, write, write_gguf

from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.checkpoints.identify import identify
from multimodal_gen.entrypoints.cli.main import main
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.launch.model_path import ModelFiles, find_model_files
from multimodal_gen.runtime.loader.checkpoint import Checkpoint

Checkpoints = Callable[..., Path]

FAMILY_OF = {
    "flux-dev": "flux",
    "flux-schnell": "flux",
    "sd3": "stable_diffusion_3",
    "sd35": "stable_diffusion_3",
    "zimage": "z_image",
    "flux2-klein": "flux2",
    "wan": "wan",
    "wan-i2v": "wan_image_to_video",
    "wan22-ti2v": "wan",
    "ltx": "ltx",
    "hunyuan-video": "hunyuan_video",
}


@pytest.fixture
def folder(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    """A checkpoint of the test's own, to be broken."""
    return Path(shutil.copytree(checkpoints("flux-schnell"), tmp_path / "checkpoint"))


def refused(path: Path) -> str:
    with pytest.raises(InvalidCheckpoint) as error:
        identify(path)
    return str(error.value)


def test_a_folder_is_told_component_by_component(checkpoints: Checkpoints) -> None:
    found = identify(checkpoints("flux-dev", variant="fp16", shard_bytes="50KB"))
    assert found.family is not None
    assert (found.family.name, found.pipeline_class) == ("flux", "FluxPipeline")
    assert found.complaints == ()
    parts = {part.name: part for part in found.components}
    transformer = parts["transformer"]
    assert transformer.class_name == "FluxTransformer2DModel"
    assert transformer.variant == "fp16"
    assert len(transformer.files) > 1
    assert list(transformer.dtypes) == ["F32"]
    assert transformer.size == 4 * transformer.parameters
    assert parts["tokenizer"].files == ()


@pytest.mark.parametrize("name", FAMILY_OF)
@pytest.mark.parametrize("style", ["original", "diffusers"])
def test_a_single_file_is_known_by_its_tensors(
    name: str, style: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    tensors = ORIGINAL[name](folder) if style == "original" else weights(folder)
    found = identify(write(tmp_path / "x.safetensors", tensors))
    assert found.family is not None
    assert (found.family.name, found.layout) == (
        FAMILY_OF[name],
        f"single safetensors file, {style} names",
    )


def test_what_else_a_file_holds_is_told(checkpoints: Checkpoints, tmp_path: Path) -> None:
    found = identify(write(tmp_path / "x.safetensors", sdxl(checkpoints("sdxl"))))
    assert {part.name for part in found.components} == {
        "denoiser",
        "vae",
        "text_encoder",
        "text_encoder_2",
    }
    assert found.base == "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.mark.parametrize(
    ("name", "base"),
    [("flux-dev", "FLUX.1-dev"), ("flux-schnell", "FLUX.1-schnell"), ("sd35", "3.5-medium")],
)
def test_the_base_is_the_published_checkpoint_that_fits(
    name: str, base: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    found = identify(write(tmp_path / "x.safetensors", ORIGINAL[name](checkpoints(name))))
    assert found.base is not None
    assert found.base.endswith(base)


def test_quantisation_is_told(folder: Path, tmp_path: Path) -> None:
    found = identify(write_gguf(tmp_path / "x.gguf", flux(folder), "Q8_0"))
    assert found.layout == "single gguf file, original names"
    assert found.quantisation == ("Q8_0",)


def test_a_file_that_another_family_has_too_says_so(folder: Path, tmp_path: Path) -> None:
    found = identify(write(tmp_path / "x.safetensors", flux(folder)))
    assert "flux_kontext" in {family.name for family in found.alike}


def test_a_file_of_one_component_says_which(
    checkpoints: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "ae.sft", vae(checkpoints("flux-dev")))
    found = identify(file)
    assert found.layout == "single safetensors file of a VAE of Stable Diffusion's kind"
    assert {"flux.vae", "stable_diffusion_xl.vae", "z_image.vae"} < {*found.fits}
    assert [part.class_name for part in found.components] == ["AutoencoderKL"]
    assert main(["models", str(file)]) == 0
    assert "flux.vae, flux_kontext.vae, flux_fill.vae" in capsys.readouterr().out


def test_a_checkpoint_is_described_with_a_file_of_one_component(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "ae.sft", vae(folder))
    for path in (folder / "vae").glob("*.safetensors"):
        path.unlink()
    assert main(["models", str(folder)]) == 1
    assert "can't be loaded: vae" in capsys.readouterr().out
    assert main(["models", str(folder), "--component", f"vae={file}"]) == 0
    assert re.search(r"vae +AutoencoderKL .*ae\.sft", capsys.readouterr().out)
    assert main(["models", str(folder), "--component", f"text_encoder={file}"]) == 1
    assert "holds a VAE of Stable Diffusion's kind; must be of class" in capsys.readouterr().err
    assert main(["models", str(folder), "--component", f"x={file}"]) == 1
    assert "x must be one of text_encoder, text_encoder_2, transf" in capsys.readouterr().err


def test_a_file_of_one_component_is_no_model(checkpoints: Checkpoints, tmp_path: Path) -> None:
    file = write(tmp_path / "ae.sft", vae(checkpoints("flux-dev")))
    with pytest.raises(InvalidCheckpoint, match=r"Diffusion's kind: pass it as --component vae="):
        find_model_files(str(file))


UNKNOWN: list[tuple[Tensors, list[str]]] = [
    ({}, ["holds no tensors"]),
    ({"a.b": torch.ones(2)}, ["not a model of a known layout", "FLUX.1", "a.b"]),
    ({"lora_unet_x.lora_down.weight": torch.ones(2)}, ["looks like a LoRA"]),
    ({"decoder.conv_in.weight": torch.ones(2)}, ["looks like a VAE"]),
    ({"double_blocks.0.img_attn.qkv.weight": torch.ones(2)}, ["FLUX", "which also has"]),
]


@pytest.mark.parametrize(("tensors", "told"), UNKNOWN, ids=lambda value: str(value)[:30])
def test_an_unknown_file_says_what_it_looked_like(
    tensors: Tensors, told: list[str], tmp_path: Path
) -> None:
    message = refused(write(tmp_path / "x.safetensors", tensors))
    assert all(part in message for part in told), message


def test_missing_and_unknown_tensors_are_named(folder: Path, tmp_path: Path) -> None:
    from denoisers import load_denoiser

    tensors = flux(folder)
    for change, told in (
        ({"img_in.bias": None}, ["x.safetensors", "missing", "x_embedder.bias"]),
        ({"double_blocks.0.img_mod.lin.weight": None}, ["missing", "norm1.linear.weight"]),
        ({"double_blocks.7.new.weight": torch.ones(2)}, ["unexpected", "double_blocks.7.new"]),
        ({"img_in.weight": torch.ones(64, 7)}, ["wrong shape", "[64, 7]"]),
    ):
        changed = {k: t for k, t in (tensors | change).items() if t is not None}
        file = write(tmp_path / "x.safetensors", changed)
        with pytest.raises(InvalidCheckpoint) as error:
            load_denoiser(folder, file)
        assert all(part in str(error.value) for part in told), str(error.value)


def test_a_base_without_a_place_for_the_file_is_refused(
    folder: Path, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    file = write(tmp_path / "x.safetensors", flux(folder))
    with pytest.raises(InvalidCheckpoint, match=r"FluxTransformer2DModel.*does not use"):
        Checkpoint.open(checkpoints("sd15"), file)


@pytest.mark.parametrize(
    ("name", "component"),
    [("high_noise", "transformer"), ("A14B-LowNoise", "transformer_2"), ("wan", None)],
)
def test_of_two_experts_the_files_name_says_which(
    name: str, component: str | None, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("wan22")
    file = write(tmp_path / f"{name}.safetensors", weights(folder))
    if component is None:
        with pytest.raises(InvalidCheckpoint, match="must say which"):
            Checkpoint.open(folder, file)
    else:
        assert list(Checkpoint.open(folder, file).files) == [component]


def test_a_shard_that_lacks_what_the_index_says_is_named(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = Path(
        shutil.copytree(checkpoints("flux-dev", shard_bytes="50KB"), tmp_path / "checkpoint")
    )
    index = folder / "transformer/diffusion_pytorch_model.safetensors.index.json"
    content = json.loads(index.read_text())
    file = next(iter(content["weight_map"].values()))
    content["weight_map"]["extra.weight"] = file
    index.write_text(json.dumps(content))
    assert any(f"{file}: lacks 1 tensors" in said for said in identify(folder).complaints)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: shutil.rmtree(f / "vae"), "vae: no such folder"),
        (lambda f: (f / "vae/config.json").unlink(), "vae/config.json"),
        (lambda f: (f / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"PK"), "zip"),
        (lambda f: (f / "model_index.json").write_text('{"_class_name": "X"}'), "'X' is not known"),
        (lambda f: (f / "model_index.json").write_text("{}"), "lists no vae"),
        (
            lambda f: (f / "model_index.json").write_text('{"vae": ["os", "system"]}'),
            "vae=os.system is not an allowed class",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(
    change: Callable[[Path], object], told: str, folder: Path
) -> None:
    change(folder)
    assert any(told in said for said in identify(folder).complaints)


def test_what_is_named_and_never_loaded_may_be_missing(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert identify(folder).complaints == ()


def test_a_folder_of_single_files_names_them(tmp_path: Path) -> None:
    (tmp_path / "flux.gguf").touch()
    assert "flux.gguf" in refused(tmp_path)


def safetensors_with(header: object) -> bytes:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + b"\0" * 64


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> object:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def gguf_with(*numbers: int, rest: bytes = b"") -> bytes:
    version, *counts = numbers
    return b"GGUF" + struct.pack("<I", version) + struct.pack(f"<{len(counts)}Q", *counts) + rest


HOSTILE = {
    "not json": safetensors_with(b"{xx"),
    "no object": safetensors_with({"x": [1]}),
    "deep": safetensors_with(b'{"x":' + b"[" * 100_000),
    "type": safetensors_with(entry(dtype="Z9")),
    "negative shape": safetensors_with(entry(shape=[-2])),
    "huge shape": safetensors_with(entry(shape=[2**62, 2**62])),
    "wide number": safetensors_with(entry(shape=[10**30])),
    "many dimensions": safetensors_with(entry(shape=[1] * 1000)),
    "backwards": safetensors_with(entry(offsets=[8, 0])),
    "outside": safetensors_with(entry(offsets=[1000, 1008])),
    "wrong size": safetensors_with(entry(offsets=[0, 4])),
    "metadata": safetensors_with({"__metadata__": {"a": 1}}),
    "latin": safetensors_with(b'{"\xff":1}'),
    "gguf only": b"GGUF" + b"\0" * 5,
    "gguf version": gguf_with(9, 0, 0),
    "gguf tensors": gguf_with(3, 2**63, 0),
    "gguf values": gguf_with(3, 0, 2**63),
    "gguf string": gguf_with(3, 0, 1, rest=struct.pack("<Q", 2**63)),
    "gguf array": gguf_with(3, 0, 1, rest=struct.pack("<QcIIQ", 1, b"a", 9, 0, 2**63)),
    "gguf strings": gguf_with(3, 0, 1, rest=struct.pack("<QcIIQ", 1, b"a", 9, 8, 2**63)),
    "gguf nested": gguf_with(3, 0, 1, rest=struct.pack("<QcIIQ", 1, b"a", 9, 9, 3)),
    "gguf kind": gguf_with(3, 0, 1, rest=struct.pack("<QcI", 1, b"a", 77)),
    "gguf dimensions": gguf_with(3, 1, 0, rest=struct.pack("<QcI", 1, b"a", 2**31)),
    "gguf type": gguf_with(3, 1, 0, rest=struct.pack("<QcIQIQ", 1, b"a", 1, 32, 9999, 0)),
    "gguf blocks": gguf_with(3, 1, 0, rest=struct.pack("<QcIQIQ", 1, b"a", 1, 31, 2, 0)),
    "gguf rows": gguf_with(3, 1, 0, rest=struct.pack("<QcIQQIQ", 1, b"a", 2, 16, 2, 2, 0)),
    "gguf scalar": gguf_with(3, 1, 0, rest=struct.pack("<QcIIQ", 1, b"a", 0, 2, 0)),
    "gguf outside": gguf_with(3, 1, 0, rest=struct.pack("<QcIQIQ", 1, b"a", 1, 2**40, 0, 0)),
    "gguf askew": gguf_with(3, 1, 0, rest=struct.pack("<QcIQIQ", 1, b"a", 1, 1, 0, 3)),
    "gguf alignment": gguf_with(
        3, 0, 1, rest=struct.pack("<Q17sII", 17, b"general.alignment", 4, 0)
    ),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_head_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match=r"^x\.gguf: "):
        read_header(tmp_path / "x.gguf")


@pytest.mark.parametrize("cut", [10, 200, -100])
@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_a_file_that_was_cut_off_says_so(kind: str, cut: int, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    write(path, flux(folder)) if kind == "safetensors" else write_gguf(path, flux(folder))
    path.write_bytes(path.read_bytes()[:cut])
    assert "damaged" in refused(path)


@pytest.mark.parametrize(
    ("dims", "kind", "said"),
    [
        ((31,), 2, r"a \[31\]: its rows don't split into the blocks of 32 numbers of Q4_0"),
        ((128, 6), 12, r"a \[6, 128\]: its rows don't .* 256 numbers of Q4_K"),
        ((32,), 9999, "a: type 9999 is not supported"),
        ((256, 2**40), 14, r"damaged: ends after \d+ bytes, a would end at"),
        ((1,) * 9, 0, "a has 9 dimensions"),
    ],
)
def test_a_gguf_file_is_refused_with_the_tensor_and_its_type(
    dims: tuple[int, ...], kind: int, said: str, tmp_path: Path
) -> None:
    entry = struct.pack(f"<QcI{len(dims)}QIQ", 1, b"a", len(dims), *dims, kind, 0)
    (tmp_path / "x.gguf").write_bytes(gguf_with(3, 1, 0, rest=entry))
    with pytest.raises(InvalidCheckpoint, match=said):
        read_header(tmp_path / "x.gguf")


@settings(max_examples=200, deadline=None, database=None)
@given(data=st.data())
def test_bytes_changed_at_random_are_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    tensors = {"a.weight": torch.ones(4, 32), "b": torch.ones(3)}
    if data.draw(st.booleans()):
        save_file(tensors, path)
    else:
        write_gguf(path, tensors, "Q8_0")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 300) - 1))] = data.draw(
            st.integers(0, 255)
        )
    path.write_bytes(content)
    try:
        header = read_header(path)
    except InvalidCheckpoint:
        return
    assert all(info.start + info.size <= len(content) for info in header.tensors.values())


def test_the_command_says_what_a_checkpoint_is(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "flux: FLUX.1 (FluxPipeline)" in said
    assert "FluxTransformer2DModel" in said
    shutil.rmtree(folder / "vae")
    assert main(["models", str(folder)]) == 1
    assert "can't be loaded: vae: no such folder" in capsys.readouterr().out
    assert main(["models", str(write(tmp_path / "x.sft", {"a": torch.ones(1)}))]) == 1
    assert "x.sft: not a model of a known layout" in capsys.readouterr().err


def test_the_command_says_it_without_torch(folder: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "x.gguf", flux(folder), "Q8_0")
    program = (
        "import sys; from multimodal_gen.entrypoints.cli.main import main\n"
        f"status = main(['models', {str(file)!r}])\n"
        "sys.exit(status or str({'torch', 'diffusers', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"
    assert "Q8_0" in done.stdout


def test_a_file_beside_an_index_takes_its_own_folder_as_base(folder: Path) -> None:
    file = write(folder / "x.safetensors", prefixed(flux(folder), COMFY))
    assert find_model_files(str(file)) == ModelFiles(folder, file)


def test_a_base_may_be_named(folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "x.safetensors", flux(folder))
    assert find_model_files(str(file), None, str(folder)) == ModelFiles(folder, file)


def test_without_a_base_the_published_one_is_named(folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "x.safetensors", flux(folder))
    with pytest.raises(InvalidCheckpoint) as error:
        find_model_files(str(file))
    told = ["FLUX.1", "black-forest-labs/FLUX.1-schnell", "HF_HUB_OFFLINE", "--base-model-path"]
    assert all(part in str(error.value) for part in told), str(error.value)


def test_a_base_is_for_single_files(folder: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="is only allowed with a single file"):
        find_model_files(str(folder), None, str(folder))
