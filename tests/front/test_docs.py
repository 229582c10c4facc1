"""Every command and snippet of README and docs works, or is listed here with why it is not run."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import yaml
from places import ROOT
from snippets import PAGES, SERVER, Call, Shell, Snippet, snippets_of

from multimodal_gen import DiffusionGenerator
from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.entrypoints.cli.main import app, main
from multimodal_gen.entrypoints.http.transport.key_ring import read_keys
from multimodal_gen.launch.engine_process import EngineProcess

WITH_SNIPPETS = [page for page in PAGES if snippets_of(page)]
LONG = ("docs/index.md",)
"""Pages whose commands start many engines, as others do, too."""
PAGES_IN_TURN = [
    pytest.param(page, id=name, marks=pytest.mark.slow if name in LONG else ())
    for page, name in ((page, str(page.relative_to(ROOT))) for page in WITH_SNIPPETS)
]
TOOLS = ("bash", "curl", "jq", "openssl", "base64")

ONLY_PARSED = {
    "serve": "the shared server stands for it; test_http_server.py starts real ones",
    "engine": "runs until it is stopped",
    "bench": "takes minutes; test_bench.py runs it",
    "--model-path": "a download, or a file of the reader's",
    "--lora-dir": "LoRA files of the reader's; tests/engine/test_lora.py has some",
    "--upscaler-dir": "files of the reader's; tests/engine/test_upscalers.py has some",
    "--prompt-enhancer": "a folder of the reader's; tests/engine/test_prompt_enhancer.py has some",
    "--num-gpus": "starts ranks of its own, as tests/engine/test_ranks.py does",
    "cuda": "a GPU",
    "flux1-dev-Q4_K_S.gguf": "a file of the reader's",
    "./my-checkpoint": "a folder of the reader's",
}
"""Words of a `multimodal-gen` command that is parsed but not run, and why."""

ONLY_COMPILED = {
    "black-forest-labs/": "a download",
    "stable-diffusion-v1-5/": "a download",
    "Lightricks/": "a download",
    "create_and_poll": "the bundled model generates no videos",
    "while True": "runs until it is stopped",
}
"""Parts of a Python snippet that is compiled but not run, and why."""

NOT_CODE = {"nginx", "text", "ini"}
"""Languages of configuration for other programs, and of drawings."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the repository's root has and the snippets name."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("deploy", "examples", "docker", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("loras", "controls", "upscalers", "enhancer"):
        (folder / name).mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def shared(engine: EngineProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generators use the shared engine instead of starting their own."""
    engine.wait_ready(300)

    def connected(*_: object, **__: object) -> DiffusionGenerator:
        return DiffusionGenerator.connect(engine.address)

    # Tests are offline, and so would the client of the server on this machine be.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(DiffusionGenerator, "from_pretrained", connected)
    monkeypatch.setattr(DiffusionGenerator, "start", connected)
    monkeypatch.setenv("ENGINE_ADDRESS", engine.address)


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("page", PAGES_IN_TURN)
def test_the_snippets_of_a_page_work_in_order(
    page: Path, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in TOOLS:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    shell = Shell(folder, url)
    names: dict[str, Any] = {"__name__": "__main__"}
    for snippet in snippets_of(page):
        if is_of_the_package(snippet):
            compile(snippet.text, snippet.title, "exec")
            continue
        if snippet.title:
            (folder / snippet.title).write_text(snippet.text)
        if snippet.language == "bash":
            for call in shell.run(snippet.text):
                check(call, monkeypatch)
        elif snippet.language == "python":
            run_python(snippet, names, url)
        else:
            check_data(snippet, folder)


def is_of_the_package(snippet: Snippet) -> bool:
    """Whether it shows a file of the package; test_worked_examples.py carries out what it shows."""
    return "/" in snippet.title


def check(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a recorded command, or check what can be checked of it."""
    match list(call.argv):
        case ["multimodal-gen", *tokens]:
            with monkeypatch.context() as patched:
                for name, value in call.own_env.items():
                    patched.setenv(name, value)
                run_or_parse(tokens)
        case ["docker", "compose", "-f", file, *rest]:
            check_compose(Path(file), rest)
        case ["kubectl", "apply", "-f", file]:
            assert list(yaml.safe_load_all(Path(file).read_text()))
        case ["helm", "install", _, chart, "--values", values]:
            assert (Path(chart) / "Chart.yaml").is_file()
            assert Path(values).is_file()
        case ["serve", "run", file]:
            assert yaml.safe_load(Path(file).read_text())
        case ["pip", "install", *words]:
            for word in words:
                if word.startswith((".", "multimodal-gen")):
                    check_extras(word)
        case ["python" | "python3" | "kubectl" | "hf" | "pre-commit", *_]:
            pass  # other programs, which need a network, a GPU or a cluster
        case argv:
            raise AssertionError(f"what is {argv}?")


def run_or_parse(tokens: list[str]) -> None:
    if any(word in ONLY_PARSED for word in tokens):
        app.parse_args(tokens, exit_on_error=False, print_error=False)
    else:
        assert main(tokens) == 0


def check_compose(file: Path, words: list[str]) -> None:
    services = yaml.safe_load(file.read_text())["services"]
    match words:
        case ["up", "--build"]:
            assert services
        case ["--profile", profile, "up", "--build"]:
            assert profile in services
        case ["run", "--service-ports", service, *tokens]:
            assert service in services
            app.parse_args(tokens, exit_on_error=False, print_error=False)
        case _:
            raise AssertionError(f"what is {words}?")


def check_extras(requirement: str) -> None:
    """`.[otel]` names an extra that exists."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    _, bracket, extras = requirement.partition("[")
    for extra in extras.rstrip("]").split(",") if bracket else ():
        assert extra in project["optional-dependencies"]


def run_python(snippet: Snippet, names: dict[str, Any], url: str) -> None:
    code = compile(snippet.text.replace(SERVER, url), snippet.title or "<snippet>", "exec")
    if not any(part in snippet.text for part in ONLY_COMPILED):
        exec(code, names)


def check_data(snippet: Snippet, folder: Path) -> None:
    if snippet.language == "json":
        json.loads(snippet.text)
    elif snippet.language == "yaml":
        yaml.safe_load(snippet.text)
        if snippet.title == "keys.yaml":
            assert read_keys(folder / snippet.title)
    else:
        assert snippet.language in NOT_CODE


def test_every_reason_not_to_run_is_needed() -> None:
    text = "".join(snippet.text for page in PAGES for snippet in snippets_of(page))
    for part in (*ONLY_PARSED, *ONLY_COMPILED):
        assert part in text


def _indented_commands() -> Iterator[str]:
    for line in (ROOT / "README.md").read_text().splitlines():
        if line.startswith("    python3 "):
            yield line.strip()


def test_the_readmes_two_commands_install_here_and_use_what_is_here() -> None:
    generate, tests = _indented_commands()
    assert generate.startswith(
        "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt . && "
    )
    assert generate.endswith('.venv/bin/multimodal-gen generate "a red heart" -o heart.png')
    check_extras(".[test]")
    assert "-m pytest" in tests  # continuous integration runs it, word for word


def test_the_page_of_several_images_names_the_families_that_take_them() -> None:
    page = (ROOT / "docs" / "how-to" / "several-images.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith("| images")]
    for family in FAMILIES:
        if (most := family.limits.max_images) > 1:
            assert family.title in row
            assert str(most) in row
