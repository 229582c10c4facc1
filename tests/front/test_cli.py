"""The command line: what it understands, what it prints, and how it ends."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

import pytest
from PIL import Image

import multimodal_gen
from multimodal_gen import ServerArgs
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.cli.main import main
from multimodal_gen.entrypoints.python import diffusion_generator
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.postprocess.metadata import read_parameters

COMMAND = [sys.executable, "-m", "multimodal_gen.entrypoints.cli"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(multimodal_gen.__file__).parent.parent)}
SMALL = ["--width=32", "--height=32", "--num-inference-steps=2"]

Started = list[EngineArgs]


@pytest.fixture
def started(engine: EngineProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    """`generate` uses the shared engine; the arguments it would have started one with."""
    arguments: Started = []

    def start(args: EngineArgs, show: object) -> AbstractContextManager[EngineProcess]:
        arguments.append(args)
        engine.wait_ready(120)
        return nullcontext(engine)

    monkeypatch.setattr(diffusion_generator, "start_engine", start)
    monkeypatch.chdir(tmp_path)
    return arguments


def written(capsys: pytest.CaptureFixture[str]) -> list[Path]:
    return [Path(line) for line in capsys.readouterr().out.splitlines()]


def complaint(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line on stderr of a command that is refused as bad use."""
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


@pytest.mark.usefixtures("started")
def test_generate_writes_a_picture_and_prints_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--prompt", "a red heart", "--seed", "7", *SMALL]) == 0
    (path,) = written(capsys)
    assert path == Path("outputs/00000.png")
    recipe = read_parameters(path)
    assert (recipe.params.prompt, recipe.params.seed) == ("a red heart", 7)


@pytest.mark.usefixtures("started")
def test_several_outputs_go_to_numbered_files(capsys: pytest.CaptureFixture[str]) -> None:
    many = ["--num-outputs-per-prompt", "3", "-o", "new/dog.webp"]
    assert main(["generate", "--prompt", "a dog", *many, *SMALL]) == 0
    assert written(capsys) == [Path(f"new/dog-{i}.webp") for i in range(3)]


@pytest.mark.usefixtures("started")
def test_without_metadata_the_file_says_nothing() -> None:
    assert main(["generate", "--prompt", "a dog", "-o", "a.png", "--no-metadata", *SMALL]) == 0
    with Image.open("a.png") as image:
        assert image.info == {}


@pytest.mark.usefixtures("started")
def test_a_file_of_prompts_is_numbered_in_its_order(capsys: pytest.CaptureFixture[str]) -> None:
    prompts = [f"prompt {i}" for i in range(40)]
    Path("prompts.txt").write_text("\n\n".join(prompts))
    assert main(["generate", "--prompt-path", "prompts.txt", "-o", "out", *SMALL]) == 0
    assert len(written(capsys)) == 40
    made = [read_parameters(path).params.prompt for path in sorted(Path("out").iterdir())]
    assert made == prompts


@pytest.mark.usefixtures("started")
def test_jsonl_has_parameters_for_each_prompt() -> None:
    lines = [{"prompt": "a", "seed": 5}, {"prompt": "b", "width": 48, "num_outputs_per_prompt": 2}]
    Path("prompts.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    assert main(["generate", "--prompt-path", "prompts.jsonl", "--seed", "9", *SMALL]) == 0
    made = [read_parameters(path).params for path in sorted(Path("outputs").iterdir())]
    found = [(params.prompt, params.seed, params.width) for params in made]
    assert found == [("a", 5, 32), ("b", 9, 48), ("b", 10, 48)]


@pytest.mark.usefixtures("started")
def test_each_of_several_prompts_is_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--prompt", "a red heart", "--prompt", "a dog", *SMALL]) == 0
    made = [read_parameters(path).params.prompt for path in sorted(written(capsys))]
    assert made == ["a red heart", "a dog"]


Paths = list[tuple[str, tuple[str, ...] | None, str | None]]
X, Y = ("x",), ("y",)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("--prompt=a --prompt=b --image-path=x", [("a", X, None), ("b", X, None)]),
        ("--prompt=a --image-path=x --image-path=y", [("a", ("x", "y"), None)]),
        (
            "--prompt=a --prompt=b --image-path=x --image-path=y --mask-path=m",
            [("a", X, "m"), ("b", Y, "m")],
        ),
        (
            "--prompt=a --image-path=x --mask-path=m --mask-path=n",
            [("a", X, "m"), ("a", X, "n")],
        ),
        (
            "--prompt=a --image-path=x --image-path=y --mask-path=m --mask-path=n",
            [("a", X, "m"), ("a", Y, "n")],
        ),
        ("--prompt-path=p.txt --image-path=x --image-path=y", [("c", X, None), ("d", Y, None)]),
        ("--prompt-path=p.jsonl", [("e", ("x", "y"), None), ("f", X, None), ("g", None, None)]),
    ],
)
def test_each_prompt_has_its_images(
    given: str, asked: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("c\nd")
    lines = [
        {"prompt": "e", "image_path": ["x", "y"]},
        {"prompt": "f", "image_path": "x"},
        {"prompt": "g", "image_path": []},
    ]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert _asked(given.split(), monkeypatch) == asked


@pytest.mark.parametrize("way", ["variable", "file"])
def test_a_prompt_from_elsewhere_is_one_however_many_words_it_has(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("prompt: a red heart")
    if way == "variable":
        monkeypatch.setenv("MULTIMODAL_GEN_PROMPT", "a red heart")
    argv = ["--config=c.yaml"] if way == "file" else []
    assert _asked(argv, monkeypatch) == [("a red heart", None, None)]


def _asked(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> Paths:
    """The prompts, images and masks of a command's requests."""
    asked: Paths = []

    def stop(prompts: list[SamplingParams]) -> NoReturn:
        asked.extend((each.prompt, each.image_path, each.mask_path) for each in prompts)
        raise KeyboardInterrupt

    monkeypatch.setattr("multimodal_gen.entrypoints.cli.running.prompt_list.PromptList", stop)
    main(["generate", *argv])
    return asked


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("way", ["flags", "variable", "file"])
def test_components_have_files_by_flag_variable_and_file(
    way: str, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["vae=ae.sft", "text_encoder_2=a=b.gguf"]
    argv = ["--config=c.yaml"] if way == "file" else []
    if way == "flags":
        argv = [f"--component={each}" for each in given]
    elif way == "variable":
        monkeypatch.setenv("MULTIMODAL_GEN_COMPONENT", " ".join(given))
    Path("c.yaml").write_text(f"component: {given}")
    assert main(["generate", "--prompt=a", *argv, *SMALL]) == 0
    (args,) = started
    assert args.component_files == {"vae": "ae.sft", "text_encoder_2": "a=b.gguf"}


@pytest.mark.usefixtures("started")
def test_a_terminal_sees_steps_and_time_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    # So many that some progress is told, however late this process hears of it.
    assert main(["generate", "--prompt=a", "--num-inference-steps=500"]) == 0
    assert re.search(r"\d+/500 steps, ETA \d\d:\d\d", terminal.getvalue())
    assert "500/500 steps" in terminal.getvalue()


@pytest.mark.usefixtures("started")
def test_without_a_terminal_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--prompt=a", "--steps=2"]) == 0
    seed = read_parameters(Path("outputs/00000.png")).params.seed
    assert capsys.readouterr().err == f"multimodal-gen: outputs/00000.png: seed {seed}\n"


def test_a_flag_wins_over_a_variable_and_that_over_the_file(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("c.yaml").write_text("max_queue_size: 1\nnum_gpus: 1\nstep_timeout: 1\nwidth: 32\n")
    monkeypatch.setenv("MULTIMODAL_GEN_MAX_QUEUE_SIZE", "2")
    monkeypatch.setenv("MULTIMODAL_GEN_NUM_GPUS", "2")
    argv = ["generate", "--config", "c.yaml", "--prompt=a", "--max-queue-size=3", *SMALL[1:]]
    assert main(argv) == 0
    (args,) = started
    assert (args.max_queue_size, args.num_gpus, args.step_timeout) == (3, 2, 1.0)
    assert read_parameters(Path("outputs/00000.png")).params.width == 32


@pytest.mark.usefixtures("started")
def test_a_request_that_the_model_refuses_is_bad_use(capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(capsys, "generate", "--prompt=a", "--width=33")
    assert line == "multimodal-gen: --width=33: must be a multiple of 16; 32 or 48 are the nearest"


@pytest.mark.usefixtures("started")
def test_of_several_prompts_the_one_that_is_refused_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "width": 33}')
    line = complaint(capsys, "generate", "--prompt-path=p.jsonl")
    assert "prompt='b': width=33: must be a multiple of 16" in line


@pytest.mark.usefixtures("started")
def test_an_output_that_cannot_be_written_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a-1.png").mkdir()
    assert main(["generate", "--prompt=a", "--num-outputs-per-prompt=2", "-oa.png", *SMALL]) == 1
    assert "multimodal-gen: 'a': the output can't be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "missing command: must be one of generate, "),
        (["paint"], 'Unknown command "paint"'),
        (["generate"], "must not be empty without prompt_path"),
        (["generate", "--prompt=a", "--prompt="], "must not be empty without prompt_path"),
        (
            ["generate", *["--prompt=a"] * 3, *["--image-path=x"] * 2],
            "--image-path='2 files': must be one, or one for each of 3 requests",
        ),
        (["generate", "--prompt=a", "--stepz=3"], "Unknown option: --stepz. Did you mean --steps?"),
        (["generate", "--prompt=a", "--width=wide"], "--width='wide': must be a whole number"),
        (["generate", "--prompt=a", "--num-gpus=0"], "--num-gpus=0: must be at least 1"),
        (["generate", "--prompt=a", "--prompt-path=b"], "can't be combined with prompt_path"),
        (["generate", "--prompt-path=/nowhere"], "--prompt-path='/nowhere': can't be read"),
        (["generate", "--prompt=a", "-o", "a.bmp"], "must end in .png, "),
        (["generate", "--prompt=a", "--config=/nowhere.yaml"], "--config /nowhere.yaml: "),
        (["serve", "--num-gpus=two"], "Invalid value for --num-gpus"),
        (["generate", "--prompt=a", "--num-gpu=2"], "Did you mean --num-gpus?"),
        (["generate", "--webhook-secrt=x"], "Did you mean --webhook-secret, an option of serve?"),
        (["generate", "--prompt=a", "--dtype=float23"], 'Did you mean "float32"?'),
    ],
)
def test_bad_use_is_one_clear_line(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in complaint(capsys, *argv)


def test_a_benchmark_without_a_place_for_its_timeline_does_not_begin(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = complaint(capsys, "bench", "--profile=/nowhere/t.json")
    assert said == "multimodal-gen: --profile='/nowhere/t.json': must be in a folder that exists"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["generate", "--webhook-secret", "x"], "--webhook-secret is an option of serve"),
        (["generate", "--prompt=a", "--max-steps=10"], "--max-steps is an option of serve"),
        (["bench", "--port", "1"], "--port is an option of serve"),
        (["models", "--port", "1"], "--port is an option of serve"),
        (["serve", "--width=32"], "--width is an option of generate"),
        (["generate", "--prompt=a", "--repeats=2"], "--repeats is an option of bench"),
        (
            ["models", "--config=c.yaml"],
            "--config is an option of generate, serve, bench and engine",
        ),
    ],
)
def test_an_option_of_another_command_is_refused_and_says_where_it_belongs(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = f"multimodal-gen: {said} (see multimodal-gen {argv[0]} --help)"
    assert complaint(capsys, *argv) == expected


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("mps", "not supported, as MPS has no float64"),
        ("rocm", "AMD GPUs are used under the name cuda"),
        ("tpu", "must be one of auto, cpu, cuda"),
    ],
)
@pytest.mark.parametrize("way", ["flag", "variable", "file"])
def test_a_device_that_cannot_be_used_is_refused_with_the_reason(
    device: str,
    said: str,
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["generate", "--prompt=a"]
    if way == "flag":
        argv.append(f"--device={device}")
    elif way == "variable":
        monkeypatch.setenv("MULTIMODAL_GEN_DEVICE", device)
    else:
        (tmp_path / "c.yaml").write_text(f"device: {device}")
        argv.append(f"--config={tmp_path}/c.yaml")
    typed = {"flag": "--device", "variable": "MULTIMODAL_GEN_DEVICE", "file": "device"}[way]
    assert f"multimodal-gen: {typed}={device!r}: {said}" in complaint(capsys, *argv)


EVERYTHING = """
num_gpus: 1
max_queue_size: 7
port: 1
webhook_secret: x
max_steps: 3
admin_key: y
repeats: 2
prompt: a
width: 32
"""


@pytest.mark.parametrize(
    "command", [["generate", "--prompt-path=/nowhere"], ["bench", "--repeats=0"], ["serve"]]
)
def test_all_commands_can_share_one_config_file(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Each fails by what comes after its options were understood.
    (tmp_path / "c.yaml").write_text(EVERYTHING + "webhook_url: x")
    said = complaint(capsys, *command, "--config", str(tmp_path / "c.yaml"))
    expected = {
        "generate": "can't be combined with prompt_path",
        "bench": "repeats",
        "serve": "webhook_url=",
    }
    assert expected[command[0]] in said


def test_an_unknown_key_of_a_config_file_names_the_nearest_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("webhok_secret: x")
    said = complaint(capsys, "generate", "--prompt=a", "--config", str(tmp_path / "c.yaml"))
    assert "webhok_secret is not an option of any command; did you mean webhook_secret?" in said


def test_variables_of_other_commands_are_ignored(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIMODAL_GEN_PORT", "not a port")
    monkeypatch.setenv("MULTIMODAL_GEN_WEBHOOK_SECRET", "x")
    assert main(["generate", "--prompt=a", *SMALL]) == 0
    assert started == [EngineArgs()]


def test_generate_shows_its_own_options_on_a_screen_and_a_half() -> None:
    environment = ENVIRONMENT | {"COLUMNS": "100"}
    command = [*COMMAND, "generate", "--help"]
    shown = subprocess.check_output(command, text=True, env=environment)
    assert len(shown.splitlines()) <= 80
    assert not re.search("webhook|--port|--api-key|--max-steps", shown)


def test_serve_shows_every_server_argument_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(ServerArgs):
        assert f"--{field.name.replace('_', '-')} " in shown
    for title in ("Engine", "HTTP", "Jobs and webhooks", "Authentication", "Limits"):
        assert f"─ {title} ─" in shown


@pytest.mark.parametrize(
    "text", ["nonsense: 1", "num_gpus: [", "a: b: c", "- 1", "num_gpus: many", "num_gpus: 0"]
)
def test_a_bad_config_file_is_one_clear_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    said = complaint(capsys, "generate", "--prompt=a", "--config", str(tmp_path / "c.yaml"))
    assert "c.yaml" in said or "num_gpus=0" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a", "size": 3}', "size=3: unknown; allowed are prompt, "),
        ('{"prompt": "a", "width": "wide"}', "width='wide': must be a whole number"),
        ('{"prompt": ', "Input data was truncated"),
        ("[]", "entry=[]: must be a prompt, or an object of parameters"),
        ('{"seed": 1}', "prompt='': must not be empty"),
    ],
)
def test_a_bad_line_of_a_prompt_file_is_named(
    line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "fine"}\n' + line)
    complained = complaint(capsys, "generate", f"--prompt-path={tmp_path}/p.jsonl")
    assert "p.jsonl:2" in complained
    assert said in complained


@pytest.mark.parametrize("path", ["file/", "file/deeper/", "file/a.png", "closed/a.png"])
def test_an_output_with_no_place_is_refused_before_the_work(
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("closed").symlink_to("nowhere")
    line = complaint(capsys, "generate", "--prompt=a", "--model-path=/nowhere", "-o", path)
    assert line.startswith(f"multimodal-gen: -o/--output-path={path!r}: ")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--prompt=a", "--image-path=none.png"],
            "--image-path='none.png': can't be read: No such",
        ),
        (
            ["--prompt=a", "--mask-path=text.png"],
            "--mask-path='text.png': can't be read as an image",
        ),
        (["--prompt-path=p.jsonl"], "prompt='b': image_path='none.png': can't be read"),
        (["--prompt-path=none.txt"], "--prompt-path='none.txt': can't be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_before_the_engine_starts(
    flags: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("text")
    Path("p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "image_path": "none.png"}')
    assert said in complaint(capsys, "generate", "--model-path=/nowhere", *flags)


def test_a_model_that_is_not_there_is_bad_use(capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, "generate", "--prompt=a", "--model-path=/nowhere")
    assert "--model-path='/nowhere': no such file or folder" in said


def test_models_lists_every_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert {line.split()[0] for line in said.splitlines()[1:]} == {f.name for f in FAMILIES}


@pytest.mark.parametrize("argv", [["--help"], ["generate", "--help"], ["--version"], ["models"]])
def test_what_needs_no_engine_imports_nothing_heavy(argv: list[str]) -> None:
    program = (
        "import sys; from multimodal_gen.entrypoints.cli.main import main\n"
        f"status = main({argv})\n"
        "heavy = {'torch', 'fastapi', 'PIL', 'numpy', 'zmq', 'asyncio'} & sys.modules.keys()\n"
        "sys.exit(status or str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_command_starts_an_engine_and_interrupting_it_ends_everything(tmp_path: Path) -> None:
    short = {"prompt": "a dog", "num_inference_steps": 2}
    long = {"prompt": "a dog", "num_inference_steps": 1000, "width": 128, "height": 128}
    (tmp_path / "p.jsonl").write_text(f"{json.dumps(short)}\n{json.dumps(long)}")
    # What began these tests in the background may have had them ignore it, and their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [*COMMAND, "generate", "--device=cpu", "--prompt-path=p.jsonl", "-o", "out"],
        env=ENVIRONMENT,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert first == "out/00000.png\n"
    seed, said = errors.splitlines()
    assert seed.startswith("multimodal-gen: out/00000.png: seed ")
    assert (process.returncode, said) == (130, "multimodal-gen: cancelled")
