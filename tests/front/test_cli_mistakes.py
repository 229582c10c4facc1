"""Mistakes on the command line: each gives one line that leads to the right call and exit status 2,
before any model is loaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from multimodal_gen.entrypoints.cli.__main__ import run
from multimodal_gen.entrypoints.cli.main import app, main
from multimodal_gen.entrypoints.cli.options.option_owners import ELSEWHERE, OptionOwners
from multimodal_gen.entrypoints.cli.prompts import early_checks
from multimodal_gen.entrypoints.python import diffusion_generator

MISTAKES: list[tuple[str, str]] = [
    # commands
    ('"a red heart"', "To generate: multimodal-gen generate 'a red heart'."),
    ("generat a", "Did you mean generate?"),
    ("help", "Did you mean multimodal-gen --help?"),
    ("--prompt a", "A command comes first, as in `multimodal-gen generate --prompt …`."),
    ("serve model/", "model/: not an option, and this command takes no such word"),
    # prompts
    ("generate", 'must not be empty without prompt_path: multimodal-gen generate "a red heart"'),
    ('generate ""', "must not be empty"),
    ("generate a --prompt-path p.txt", "prompt='a': can't be combined with prompt_path"),
    ("generate --prompt-path none.txt", "--prompt-path='none.txt': can't be read: No such file"),
    ("generate --prompt-path empty.txt", "must contain at least one prompt"),
    ("generate --prompt-path photo.png", "can't be read as text; use .txt, .csv, .json, .jsonl"),
    ("generate --prompt-path bad.csv", "the first line must name parameters, one of them prompt"),
    ("generate --prompt-path cells.csv", "'cells.csv:3': must have 2 cells"),
    ("generate --prompt-path typo.jsonl", "'typo.jsonl:1': seeed=3: "),
    ("generate --prompt-path broken.json", "'broken.json': is not valid JSON"),
    ("generate --prompt-path deep.json", "'deep.json': is not valid JSON"),
    ("generate --prompt-path deep.jsonl", "'deep.jsonl:1': is not valid JSON"),
    # numbers
    ("generate a -W 70", "-W/--width=70: must be a multiple of 16; 64 or 80 are the nearest"),
    ("generate a -H 1e3", "-H/--height='1e3': must be a whole number"),
    ("generate a -W 100000", "-W/--width=100000: must be 16 to "),
    ("generate a --steps 0", "--steps=0: must be 1 to 1000"),
    ("generate a --steps 2.5", "--steps='2.5': must be a whole number"),
    ("generate a -n 0", "-n/--num-outputs-per-prompt=0: must be 1 to 16"),
    ("generate a -n 99", "-n/--num-outputs-per-prompt=99: must be 1 to 16"),
    ("generate a -s x", "-s/--seed='x': must be a whole number"),
    ("generate a --guidance-scale 200", "--guidance-scale=200.0: must be 0 to 100"),
    ("generate a --guidance-start 0.9 --guidance-stop 0.5", "--guidance-stop=0.5: must be more"),
    ("generate a --image-path photo.png --strength 2", "--strength=2.0: must be more than 0 and"),
    ("generate a --deadline-s 0", "--deadline-s=0.0: must be 0.001 to"),
    # names
    ("generate a --scheduler eular", "--scheduler='eular': this model allows flow_euler, "),
    ("generate a --noise-schedule foo", "--noise-schedule='foo': this model allows normal, "),
    ("generate a --quality best", 'Choose from: "exact", "high", "fast"'),
    ("generate a --lora ink", "--lora='ink': needs --lora-dir, the folder that it is in"),
    ("generate a --lora ink --lora-dir d", "--lora='ink': is not known; available: damaged"),
    ("generate a --lora damaged --lora-dir d", "--lora='damaged': damaged.safetensors: "),
    ("generate a --lora d/damaged.safetensors", "--lora-dir d, and damaged as name"),
    ("generate a --control edges=photo.png --control-dir d", "--control='edges': is not known"),
    ("generate a --upscale 4x@2 ", "--upscale='4x': needs --upscaler-dir"),
    ("generate a --upscale 4x@2 --upscaler-dir d", "--upscale='4x': is not known"),
    ("generate a --num-frames 9", "--num-frames=9: this model makes pictures, not videos"),
    ("generate a --fps 8", "--fps=8: this model makes pictures, not videos"),
    # files
    ("generate a --image-path none.png", "--image-path='none.png': can't be read: No such file"),
    ("generate a --image-path p.txt", "--image-path='p.txt': can't be read as an image (PNG, "),
    ("generate a --image-path photo.png --mask-path d", "--mask-path='d': can't be read"),
    ("generate a --mask-path photo.png", "mask"),
    ("generate a --model-path nowhere/at/all", "no such file or folder, and not a hub name"),
    ("generate a --model-path d", "has no model_index.json, so it is not in diffusers layout"),
    ("generate a --model-path x.gguf", "--model-path='x.gguf': no such file or folder"),
    ("generate a --config none.yaml", "--config none.yaml: "),
    ("generate --from none.png", "--from='none.png': can't be read: No such file"),
    ("generate --from p.txt", "--from='p.txt': must be a PNG, JPEG, WebP, GIF or MP4"),
    ("generate --from photo.png", "--from='photo.png': has no settings in its metadata"),
    ("generate --from endless.png", "'1e400' is not a whole number"),
    ("info p.txt", "must be a PNG, JPEG, WebP, GIF or MP4"),
    ("info", "name an image or a video, as in `info heart.png`"),
    # outputs
    ("generate a -o a.bmp", "-o/--output-path='a.bmp': an output must end in .png, "),
    ("generate a -o photo.png", "photo.png exists; --force overwrites it, and a folder (out/)"),
    ("generate a -o p.txt/", "p.txt is not a writable folder"),
    ("generate a -o /proc/a.png", "/proc is not a writable folder"),
    ("generate a -o {sed}.png", "{sed} is unknown; use {prompt}, {seed} and {index}"),
    ("generate a -o {prompt.png", "is not a template: "),
    ("generate a -o {index:>99999999999}.png", "is not a template: a name would be too long"),
    ("generate a -n 2 -o -", "takes one image, not 2"),
    ("generate a -o a.mp4", "a picture must end in .png, "),
    # options
    ("generate a --stepz 3", "Unknown option: --stepz. Did you mean --steps?"),
    ("generate a --max-steps 10", "--max-steps is an option of serve"),
    ("generate a --seed", "requires an argument"),
    ("generate a --seed 1 --seed 2", "--seed specified multiple times"),
    ("generate a --device gpu", "--device='gpu': must be one of auto, cpu, cuda"),
    ("generate a --device cuda", "--device='cuda': no GPU is found on this machine; use cpu"),
    ("generate a --num-gpus 0", "--num-gpus=0: must be at least 1"),
    # servers
    ("generate a --server ftp://host", "must be a URL such as http://127.0.0.1:30000"),
    ("generate a --server h --device cpu", "--device='cpu': can't be combined with --server"),
    ("generate a --server h --server-key-file none", "--server-key-file='none': can't be read"),
    ("generate a --server-key-file p.txt", "--server-key-file='p.txt': is only used with --server"),
]
FILES = {
    "p.txt": "a dog",
    "empty.txt": "# only a comment\n\n",
    "bad.csv": "a dog, 7\n",
    "cells.csv": "prompt,seed\na,1\na, dog, 7\n",
    "typo.jsonl": '{"prompt": "a", "seeed": 3}',
    "broken.json": '["a", ',
    "deep.json": "[" * 100_000,
    "deep.jsonl": "[" * 100_000,
    "d/damaged.safetensors": "no weights",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that the mistakes name, on a machine without a GPU, where no engine may start."""

    def start(*_: object) -> NoReturn:
        raise AssertionError("an engine was started")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(diffusion_generator, "start_engine", start)
    monkeypatch.setattr(early_checks, "gpus", list)
    monkeypatch.setattr(early_checks, "GPU_FILES", ())
    Path("d").mkdir()
    for name, text in FILES.items():
        Path(name).write_text(text)
    Image.new("RGB", (32, 32)).save("photo.png")
    info = PngInfo()
    info.add_text("parameters", "a dog\nSteps: 1e400, Seed: inf, Size: 96x96")
    Image.new("RGB", (32, 32)).save("endless.png", pnginfo=info)


def words(line: str) -> list[str]:
    if '"' not in line:
        return line.split()
    first, quoted, rest = line.split('"')
    return [*first.split(), quoted, *rest.split()]


@pytest.mark.parametrize(("line", "said"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_told_in_one_line_that_leads_to_the_right_call(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(line)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (told,) = shown.err.splitlines()
    assert said in told


TYPOS = {
    "--promt": "--prompt",
    "--negative": "--negative-prompt",
    "--heigth": "--height",
    "--widht": "--width",
    "--sed": "--seed",
    "--step": "--steps",
    "--num-steps": "--steps",
    "--num-inference-step": "--num-inference-steps",
    "--num-frame": "--num-frames",
    "--guidence-scale": "--guidance-scale",
    "--cfg-scale": "--guidance-scale",
    "--sampler": "--scheduler",
    "--schedular": "--scheduler",
    "--image": "--image-path",
    "--mask": "--mask-path",
    "--strenght": "--strength",
    "--output": "-o",
    "--ouput-path": "--output-path",
    "--model": "--model-path",
    "--modle-path": "--model-path",
    "--batch-size": "-n",
    "--overwrite": "--force",
    "--quantisation": "--quantization",
    "--lora-scale": None,
}


@pytest.mark.parametrize(("typed", "meant"), TYPOS.items())
def test_a_typo_of_an_option_is_told_the_right_one(
    typed: str, meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "a", f"{typed}=1"]) == 2
    said = capsys.readouterr().err
    if meant is not None:
        assert f"Unknown option: {typed}. Did you mean {meant}?" in said
    else:
        assert f"Unknown option: {typed}" in said


def test_what_other_tools_call_an_option_is_an_option_of_none_of_the_commands() -> None:
    owners = OptionOwners(app, ["generate"])
    named = {name for meant in ELSEWHERE.values() for name in meant.split(" and ")}
    assert all(owners.of(name) for name in named)
    assert not any(owners.of(f"--{name}") for name in ELSEWHERE)


def test_closed_standard_streams_are_places_where_nothing_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["multimodal-gen", "--version"])
    assert run() == 0
    assert sys.stdin.read() == ""
    assert not sys.stdout.isatty()
    for name in ("stdin", "stdout", "stderr"):
        getattr(sys, name).close()
