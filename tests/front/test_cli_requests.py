"""Requests on the command line: prompts from files and streams, settings of made files, names of
outputs, completion."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from fake_engine import FakeEngine
from http_serving import MODEL
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from multimodal_gen.client.request_handle import RequestHandle
from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.cli.main import main
from multimodal_gen.entrypoints.cli.prompts.origin import origin_of
from multimodal_gen.entrypoints.cli.prompts.reading import read_prompts
from multimodal_gen.entrypoints.cli.running.outputs import slug
from multimodal_gen.entrypoints.python import diffusion_generator
from multimodal_gen.messages.request import Req
from multimodal_gen.postprocess.images import encode_image
from multimodal_gen.postprocess.metadata import Recipe, read_parameters
from multimodal_gen.postprocess.video import encode_mp4

SMALL = ["-W", "32", "-H", "32", "--steps", "2"]


class Quick(FakeEngine):
    """Ends every request at once."""

    def __init__(self) -> None:
        super().__init__()
        tasks = ("text-to-image", "image-to-image", "inpainting")
        self.model = msgspec.structs.replace(MODEL, name="bundled_model", tasks=tasks)
        self.client = self
        self.made: list[SamplingParams] = []

    def __enter__(self) -> Quick:
        return self

    def __exit__(self, *_: object) -> None: ...

    def wait_ready(self) -> Any:
        return self.model

    def submit(self, req: Req, pictures: Any = ()) -> RequestHandle:
        handle = super().submit(req, pictures)
        self.made.append(req.params)
        self.finish(req.params.prompt)
        return handle


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Quick:
    """The engine that `generate` starts."""
    quick = Quick()
    monkeypatch.setattr(diffusion_generator, "start_engine", lambda *_: quick)
    monkeypatch.chdir(tmp_path)
    return quick


class Stream(io.TextIOWrapper):
    def isatty(self) -> bool:
        return False


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", Stream(io.BytesIO(text.encode())))


def generate(*argv: str) -> int:
    return main(["generate", *argv])


def test_words_are_prompts_and_short_forms_are_options(engine: Quick) -> None:
    assert generate("a dog", "a cat", "-n", "2", "-s7", *SMALL) == 0
    made = [(each.prompt, each.seed, each.width, each.num_inference_steps) for each in engine.made]
    assert sorted(made) == [(p, s, 32, 2) for p in ("a cat", "a dog") for s in (7, 8)]


def test_a_prompt_without_quotes_is_told_to_be_several(
    engine: Quick, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate("a", "red", "heart", *SMALL) == 0
    said = capsys.readouterr().err
    assert '3 prompts of a word each; one prompt is in quotes: "a red heart"' in said


def test_words_and_prompt_options_go_together(engine: Quick) -> None:
    assert generate("a dog", "--prompt", "a cat", *SMALL) == 0
    assert {each.prompt for each in engine.made} == {"a dog", "a cat"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "# drawings\na dog\n\n  \\#1 of all dogs \n"),
        ("p.csv", 'prompt, seed\na dog, 7\n# none\n"#1 of all dogs",\n'),
        ("p.json", '["a dog", {"prompt": "#1 of all dogs"}]'),
        ("p.jsonl", '# none\n"a dog"\n{"prompt": "#1 of all dogs"}\n'),
    ],
)
def test_files_of_prompts_have_comments_and_parameters(
    name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("\ufeff" + text, encoding="utf-8")
    read = read_prompts(str(tmp_path / name), SamplingParams(seed=3))
    assert [each.prompt for each in read] == ["a dog", "#1 of all dogs"]
    assert read[1].seed == 3
    assert read[0].seed == (7 if name == "p.csv" else 3)


def test_the_cells_of_a_table_have_the_types_of_their_parameters(tmp_path: Path) -> None:
    rows = 'prompt,width,guidance_scale,keep_unmasked,sigmas,lora\n"a, b",32,1.5,true,1 0.5,ink:2'
    (tmp_path / "p.csv").write_text(rows)
    (read,) = read_prompts(str(tmp_path / "p.csv"), SamplingParams())
    assert (read.prompt, read.width, read.guidance_scale) == ("a, b", 32, 1.5)
    assert (read.keep_unmasked, read.sigmas, str(read.lora[0])) == (True, (1.0, 0.5), "ink:2.0")


@pytest.mark.parametrize(
    "text",
    ["a dog\na cat", '["a dog", "a cat"]', '{"prompt": "a dog"}\n"a cat"', "prompt\na dog\na cat"],
)
def test_a_stream_of_prompts_is_in_the_format_that_it_begins_with(
    text: str, engine: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, text)
    assert generate("--prompt-path", "-", *SMALL) == 0
    assert {each.prompt for each in engine.made} == {"a dog", "a cat"}


def test_a_hyphen_is_a_prompt_on_standard_input(
    engine: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, "a dog\nin the sea\n")
    assert generate("-", *SMALL) == 0
    assert [each.prompt for each in engine.made] == ["a dog\nin the sea"]


def test_a_hyphen_is_an_image_on_standard_output(
    engine: Quick, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert generate("a dog", "-o", "-", "-s", "5", *SMALL) == 0
    shown = capfdbinary.readouterr()
    assert read_parameters(shown.out).params.seed == 5
    assert shown.err == b"multimodal-gen: seed 5\n"
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("{prompt}-{seed}.png", ["a-dog-7.png", "a-dog-8.png", "a-cat-7.png", "a-cat-8.png"]),
        ("x/{index:03d}.webp", ["x/000.webp", "x/001.webp", "x/002.webp", "x/003.webp"]),
        ("{prompt}", ["a-dog-0.png", "a-dog-1.png", "a-cat-2.png", "a-cat-3.png"]),
        ("{prompt}/", [f"a-{p}/0000{i}.png" for i, p in enumerate(["dog", "dog", "cat", "cat"])]),
        ("{{s}}{seed}.png", ["{s}7-0.png", "{s}8-1.png", "{s}7-2.png", "{s}8-3.png"]),
    ],
)
@pytest.mark.usefixtures("engine")
def test_a_template_names_outputs_and_those_alike_by_their_number(
    path: str, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate("a dog", "a cat", "-n2", "-s7", "-o", path, *SMALL) == 0
    assert sorted(capsys.readouterr().out.split()) == sorted(names)
    assert all(Path(name).is_file() for name in names)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red heart!", "a-red-heart"),
        ("../../etc/passwd", "etc-passwd"),
        ("一只红色的狗", "一只红色的狗"),
        ("…", "untitled"),
        ("a very long prompt " * 9, "a-very-long-prompt-a-very-long-prompt-a-very-long-prompt-a"),
        ("x" * 99, "x" * 60),
    ],
)
def test_a_prompt_in_a_name_is_shortened_and_can_name_no_folder(prompt: str, name: str) -> None:
    assert slug(prompt) == name


def test_only_force_overwrites_a_file(engine: Quick, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.png").write_text("precious")
    assert generate("a dog", "-o", "a.png", *SMALL) == 2
    assert (Path("a.png").read_text(), engine.made) == ("precious", [])
    assert generate("a dog", "-o", "a.png", "--force", *SMALL) == 0
    assert read_parameters("a.png").params.prompt == "a dog"


def test_a_file_that_appears_meanwhile_is_kept_and_so_is_the_result(
    engine: Quick, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish = engine.finish
    monkeypatch.setattr(
        engine, "finish", lambda prompt: (Path("a.png").write_text("other"), finish(prompt))
    )
    assert generate("a dog", "-o", "a.png", *SMALL) == 0
    assert capsys.readouterr().out == "a-1.png\n"
    assert Path("a.png").read_text() == "other"


def made(name: str, **given: Any) -> None:
    """Write a file that says how it was made."""
    pictures = given.pop("pictures", ())
    params = SamplingParams(
        prompt="a dog", seed=9, width=32, height=48, num_inference_steps=3, **given
    )
    recipe = Recipe(params, "bundled_model", pictures=pictures)
    suffix = {".png": "png", ".jpg": "jpeg", ".webp": "webp"}[Path(name).suffix]
    Path(name).write_bytes(encode_image(np.zeros((8, 8, 3), np.uint8), suffix, recipe))  # type: ignore[arg-type]


def foreign(name: str, seed: int = 9, model: str = "other") -> None:
    """Write a file of another program."""
    info = PngInfo()
    settings = f"Steps: 3, Sampler: Euler, CFG scale: 1.5, Seed: {seed}, Size: 32x48"
    settings += f", Model: {model}"
    info.add_text("parameters", f"a dog <lora:ink:0.5>\nNegative prompt: blue\n{settings}")
    Image.new("RGB", (8, 8)).save(name, pnginfo=info)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_a_file_is_made_again_with_what_options_change(name: str, engine: Quick) -> None:
    made(name)
    assert generate("--from", name, "-H", "32") == 0
    (params,) = engine.made
    assert (params.prompt, params.seed, params.num_inference_steps) == ("a dog", 9, 3)
    assert (params.width, params.height) == (32, 32)


def test_what_a_file_was_made_from_must_be_given_again(
    engine: Quick, capsys: pytest.CaptureFixture[str]
) -> None:
    made("a.png", strength=0.5, pictures=("image", "mask"))
    assert generate("--from", "a.png") == 2
    assert "give --image-path and --mask-path again" in capsys.readouterr().err
    Image.new("RGB", (32, 48)).save("photo.png")
    assert generate("--from", "a.png", "--image-path=photo.png", "--mask-path=photo.png") == 0
    assert engine.made[0].strength == 0.5


def test_a_file_that_names_files_does_not_have_them_read(engine: Quick) -> None:
    Image.new("RGB", (32, 48)).save("secret.png")
    control = (ControlChoice("edges", image="secret.png"),)
    made("a.png", image_path="secret.png", mask_path="secret.png", control=control)
    origin = origin_of("from", "a.png")
    assert origin is not None
    params = origin.params()
    assert (params.image_path, params.mask_path, params.control[0].image) == (None, None, None)
    made("b.png", image_path="secret.png")
    assert generate("--from", "b.png") == 0
    assert engine.made[0].image_path is None


def test_each_seed_of_another_program_is_taken_exactly(engine: Quick) -> None:
    foreign("a.png", seed=2**53 + 1)
    origin = origin_of("from", "a.png")
    assert origin is not None
    assert origin.params().seed == 2**53 + 1


def test_a_terminal_obeys_nothing_in_a_file(
    engine: Quick, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign("a.png", model="\x1b[2Jother")
    assert main(["info", "a.png"]) == 0
    assert r"\x1b[2Jother" in capsys.readouterr().out
    recipe = Recipe(SamplingParams(prompt="a dog"), "\x1b]0;other\x07")
    Path("b.png").write_bytes(encode_image(np.zeros((8, 8, 3), np.uint8), "png", recipe))
    assert generate("--from", "b.png") == 2
    assert r"(\x1b]0;other\x07)" in capsys.readouterr().err


def test_settings_of_another_model_name_it(
    engine: Quick, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(SamplingParams(prompt="a dog"), "owner/name")
    Path("a.png").write_bytes(encode_image(np.zeros((8, 8, 3), np.uint8), "png", recipe))
    assert generate("--from", "a.png") == 2
    said = "--from='a.png': was made with another model (owner/name); --model-path names it"
    assert said in capsys.readouterr().err


def test_settings_of_other_programs_are_taken(
    engine: Quick, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign("a.png")
    assert generate("--from", "a.png", "--lora-dir", ".") == 2
    assert "lora='ink': is not known" in capsys.readouterr().err
    assert main(["info", "a.png", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["writer"], shown["model"]) == ("AUTOMATIC1111", "other")
    assert shown["parameters"]["Negative prompt"] == "blue"


def test_info_shows_settings_as_text_and_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made("a.png", pictures=("image",))
    assert main(["info", "a.png"]) == 0
    shown = capsys.readouterr().out
    for line in ("prompt  ", "seed  ", "size  ", "made from  "):
        assert line in shown
    assert main(["info", "a.png", "a.png", "--json"]) == 0
    first, _ = json.loads(capsys.readouterr().out)
    assert first["parameters"]["seed"] == 9
    assert first["pictures"] == ["image"]


def test_info_of_an_image_without_settings_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert main(["info", str(tmp_path / "a.png")]) == 1
    assert "has no settings in its metadata" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_options_and_choices(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("generate", "num-inference-steps", "exact", "fp8"):
        assert word in script


def test_options_that_name_files_complete_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    script = capsys.readouterr().out
    for option in ("image-path", "lora-dir", "server-key-file", "from"):
        assert f":{option}:_files'" in script
    assert main(["completion", "bash"]) == 0
    assert "complete -o default -F _multimodal_gen multimodal-gen" in capsys.readouterr().out


def test_bash_completes_an_option_and_a_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    tried = (
        script
        + """
complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    $(complete -p multimodal-gen | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo "${COMPREPLY[@]}"; }
complete_words multimodal-gen generate --num-inf
complete_words multimodal-gen generate --quality e
"""
    )
    done = subprocess.run(["bash", "-c", tried], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--num-inference-steps", "exact"]


def test_info_reads_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe(SamplingParams(prompt="a dog", seed=5, num_frames=5, fps=8), "films")
    video = tmp_path / "a.mp4"
    video.write_bytes(encode_mp4(np.zeros((5, 16, 16, 3), np.uint8), 8, recipe))
    assert main(["info", str(video), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["model"], shown["parameters"]["num_frames"]) == ("films", 5)


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "multimodal_gen", "--version"]
    assert subprocess.check_output(command, text=True).strip()
