"""What `models PATH` says about memory, from headers alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from single_files import COMFY, flux, prefixed, write, write_gguf

from multimodal_gen.checkpoints.identify import identify
from multimodal_gen.checkpoints.tensor_info import MANY_NUMBERS, TensorInfo
from multimodal_gen.configs.families.components import encoder
from multimodal_gen.entrypoints.cli.checkpoint.kept_size import KeptSize, KeptWeights, used
from multimodal_gen.entrypoints.cli.checkpoint.memory_forecast import forecast
from multimodal_gen.entrypoints.cli.main import main
from multimodal_gen.launch.device_memory import DeviceMemory, cpu_of, gpu_of

Checkpoints = Callable[..., Path]
MANY = (1 << 14, MANY_NUMBERS >> 14)
BYTES = {"F32": 4, "BF16": 2, "F8_E4M3": 1}


def tensor(dtype: str, *shape: int) -> TensorInfo:
    numbers = TensorInfo(dtype, shape, 0, 0).parameters
    return TensorInfo(dtype, shape, 0, numbers * BYTES[dtype])


@pytest.mark.parametrize(
    ("tensors", "is_cpu", "size"),
    [
        ({"a": tensor("BF16", 8, 8)}, False, KeptSize(128, 0)),
        ({"a": tensor("F32", 8, 8)}, False, KeptSize(128, 0)),
        ({"a": tensor("F8_E4M3", 8, 8)}, False, KeptSize(64, 0)),
        ({"a": tensor("BF16", 8, 8)}, True, KeptSize(256, 0)),
        ({"a": tensor("F32", 8, 8)}, True, KeptSize(0, 256)),
        ({"a": tensor("F8_E4M3", 8, 8)}, True, KeptSize(0, 64)),
        ({"a": tensor("F8_E4M3", 8, 8, 3, 3)}, False, KeptSize(1152, 0)),
        (
            {"a": tensor("BF16", *MANY), "a.bias": tensor("BF16", 8)},
            True,
            KeptSize(32, 2 * MANY_NUMBERS),
        ),
    ],
)
def test_weights_are_cast_or_stay_as_they_are_stored(
    tensors: dict[str, TensorInfo], is_cpu: bool, size: KeptSize
) -> None:
    assert KeptWeights(tensors, 4 if is_cpu else 2, is_cpu).size == size


def test_layers_that_nothing_uses_take_no_memory() -> None:
    idle = ("lm_head.weight", "visual.a", "model.visual.b", "layers.9.d", "blk.9.d")
    names = (*idle, "model.layers.8.c", "visuals")
    spec = encoder("A", idle=("lm_head", "model.visual"), depth=9)
    kept = used(dict.fromkeys(names, tensor("BF16", 2)), spec)
    assert [*kept] == ["model.layers.8.c", "visuals"]


def test_the_gpu_and_its_free_memory_are_what_the_driver_says() -> None:
    found = gpu_of(lambda: "NVIDIA H200, 142000\nNVIDIA H200, 7\n")
    assert found == DeviceMemory("NVIDIA H200", False, 142000 << 20)


@pytest.mark.parametrize("answer", ["", "no devices were found\n", "Tesla, [N/A]\n"])
def test_without_an_answer_there_is_no_gpu(answer: str) -> None:
    assert gpu_of(lambda: answer) is None


def test_a_driver_that_fails_is_no_gpu() -> None:
    def fail() -> str:
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    assert gpu_of(fail) is None


def test_a_program_in_the_working_folder_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: Checkpoints
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\ntouch asked\necho 'Fake, 1'\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f":.:{os.environ['PATH']}")
    main(["models", str(checkpoints("flux-schnell"))])
    assert not (tmp_path / "asked").exists()


def test_the_cpus_memory_is_what_is_available(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 24000 kB\nMemFree: 100 kB\nMemAvailable:  2000 kB\n")
    assert cpu_of(meminfo) == DeviceMemory("the CPU", True, 2000 * 1024)
    assert cpu_of(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("gigabytes", "said"),
    [
        ("24", "fits on a GPU with 24.00 GB: all components on the device"),
        ("0.02", "on the host between phases"),
        ("0.00001", "does not fit on a GPU with 10.00 KB"),
    ],
)
def test_the_command_says_whether_a_checkpoint_fits(
    gigabytes: str,
    said: str,
    bundled_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", str(bundled_model), "--device-memory-gb", gigabytes]) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "1e300"])
def test_memory_is_more_than_nothing_and_less_than_any_machine_has(
    given: str, bundled_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", str(bundled_model), "--device-memory-gb", given]) == 2
    said = f"--device-memory-gb={float(given)}: must be more than 0 and at most 1000000 (GB)"
    assert said in capsys.readouterr().err


def test_sizes_are_in_units_of_1000_everywhere(
    bundled_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["models", str(bundled_model), "--device-memory-gb", "0.01"])
    said = capsys.readouterr().out
    assert not re.search(r"\d [KMGT]iB", said)
    assert " 0.00 " not in said


def test_a_file_of_an_encoder_is_not_asked_whether_it_fits(
    checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder_file = checkpoints("flux-schnell") / "text_encoder" / "model.safetensors"
    assert main(["models", str(encoder_file), "--device-memory-gb", "24"]) == 0
    assert "memory:" not in capsys.readouterr().out


def test_a_checkpoint_that_lacks_weights_does_not_fit(
    checkpoints: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(checkpoints("flux-schnell"), tmp_path / "checkpoint"))
    shutil.rmtree(folder / "transformer")
    assert main(["models", str(folder), "--device-memory-gb", "24"]) == 1
    assert "fits" not in capsys.readouterr().out


def test_of_a_single_file_the_rest_is_its_bases(
    checkpoints: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(checkpoints("flux-schnell"), tmp_path / "checkpoint"))
    write_gguf(folder / "x.gguf", flux(folder), "Q8_0")
    assert main(["models", str(folder / "x.gguf"), "--device-memory-gb", "1"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"transformer +FluxTransformer2DModel .*x\.gguf .*device", said)
    assert re.search(r"text_encoder_2 +T5EncoderModel .*device", said)
    assert "without" not in said


def test_a_base_that_is_not_here_is_named(
    checkpoints: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "x.safetensors", prefixed(flux(checkpoints("flux-schnell")), COMFY))
    assert main(["models", str(file), "--device-memory-gb", "1"]) == 0
    assert "without the components of black-forest-labs/FLUX.1-schnell" in capsys.readouterr().out


def test_a_component_of_a_base_that_is_not_here_may_have_a_file_of_its_own(
    checkpoints: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoints("flux-schnell")
    file = write(tmp_path / "x.safetensors", prefixed(flux(folder), COMFY))
    vae = shutil.copy(folder / "vae" / "diffusion_pytorch_model.safetensors", tmp_path / "ae.sft")
    assert main(["models", str(file), "--component", f"vae={vae}"]) == 0
    assert re.search(r"vae +AutoencoderKL .*ae\.sft", capsys.readouterr().out)
    assert main(["models", str(file), "--component", f"unet={vae}"]) == 1
    said = "component=unet=ae.sft: unet must be one of text_encoder, text_encoder_2, transformer"
    assert said in capsys.readouterr().err


def test_a_broken_file_is_called_as_its_name_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a model")
    assert main(["models", str(tmp_path / "x.gguf")]) == 1
    assert "x.gguf: not a valid GGUF file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("free", "said"),
    [(10**9, "fits on"), (10**6, "reads its files anew"), (10, "does not fit")],
)
def test_on_a_cpu_pages_of_files_may_leave(free: int, said: str, checkpoints: Checkpoints) -> None:
    found = identify(checkpoints("flux-schnell"))
    assert found.family is not None
    parts = [each for each in found.components if each.name != "vae"]
    halves = identify(checkpoints("flux-schnell", dtype=torch.bfloat16)).components
    vae = [each for each in halves if each.name == "vae"]
    device = DeviceMemory("the CPU", is_cpu=True, free=free)
    assert said in forecast(found.family, [*parts, *vae], device).sentence
