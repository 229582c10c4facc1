"""What a process that we start can see: no code of the working folder, and no secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from multimodal_gen.launch.child_environment import child_environment

PLANTED = ("bitsandbytes", "random", "queue", "torch", "numpy", "transformers", "sitecustomize")
"""Modules that Python, torch, diffusers and transformers import, or look for."""
SCRIPT = """
import sys
sys.path[0] = "/the/folder/of/the/script"
from multimodal_gen.entrypoints.cli.__main__ import run
sys.exit(run())
"""
ITS_OWN = "sitecustomize"
"""Module that an interpreter looks for itself, before any code of ours."""
COMMANDS = {"script": ["-c", SCRIPT], "module": ["-m", "multimodal_gen.entrypoints.cli"]}
GENERATE = ["generate", "--prompt", "a red heart", "--num-inference-steps", "1", "-o", "out.png"]
SECRETS = {
    "MULTIMODAL_GEN_API_KEY": "hidden-1",
    "MULTIMODAL_GEN_ADMIN_KEY": "hidden-2",
    "MULTIMODAL_GEN_WEBHOOK_SECRET": "hidden-3",
    "MULTIMODAL_GEN_WEBHOOK_URL": "http://hidden-4",
    "MULTIMODAL_GEN_LEDGER": "postgresql://user:hidden-14@host/db",
    "PGPASSWORD": "hidden-15",
    "HF_TOKEN": "hidden-5",
    "HUGGING_FACE_HUB_TOKEN": "hidden-6",
    "HTTPS_PROXY": "http://user:hidden-7@proxy",
    "https_proxy": "http://user:hidden-8@proxy",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=hidden-9",
    "AWS_SECRET_ACCESS_KEY": "hidden-10",
    "NVIDIA_API_KEY": "hidden-11",
    "TORCH_HUB_TOKEN": "hidden-12",
    "DATABASE_URL": "postgres://user:hidden-13@host/db",
}


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder, such as a downloaded checkpoint, whose modules report that they were run."""
    for name in PLANTED:
        (tmp_path / f"{name}.py").write_text("open('executed', 'a').write(__name__ + '\\n')")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_no_code_of_the_working_folder_is_executed(hostile: Path, command: list[str]) -> None:
    inherited = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command, *GENERATE],
        cwd=hostile,
        env=inherited,
        capture_output=True,
        text=True,
    )
    assert (hostile / "out.png").is_file(), done.stderr
    assert not (hostile / "executed").exists()


@pytest.mark.parametrize("entry", ["", ".", "sub"])
def test_the_command_searches_no_relative_folder_for_modules(tmp_path: Path, entry: str) -> None:
    (tmp_path / entry).mkdir(exist_ok=True)
    for name in {*PLANTED, "cyclopts", "yaml", "msgspec"} - {ITS_OWN}:
        planted = f"open({str(tmp_path / 'executed')!r}, 'a').write(__name__)"
        (tmp_path / entry / f"{name}.py").write_text(planted)
    for given in (f"{ROOT}:{entry}", f"{entry}:{ROOT}"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, "models"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": given},
            capture_output=True,
        )
        assert b"flux" in done.stdout, done.stderr
        assert not (tmp_path / "executed").exists()


def test_a_search_path_with_the_working_folder_is_not_passed_on(
    hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hostile)
    for name in ("PYTHONPATH", "LD_LIBRARY_PATH", "PATH"):
        monkeypatch.setenv(name, os.pathsep.join(["", ".", "here", "/opt/there", ""]))
    environment = child_environment()
    assert environment["PYTHONPATH"].split(os.pathsep)[-1] == "/opt/there"
    assert environment["PATH"] == environment["LD_LIBRARY_PATH"] == "/opt/there"
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep)
    assert "LD_LIBRARY_PATH" not in child_environment()
    look = "import sys; print(sys.path)"
    shown = subprocess.check_output([sys.executable, "-c", look], env=environment, text=True)
    assert str(hostile) not in shown
    assert "''" not in shown


def test_secrets_are_in_no_environment_of_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    environment = child_environment(local_ranks=2)
    shown = " ".join(environment.values())
    assert not [value for value in SECRETS.values() if value in shown]
    assert environment.keys().isdisjoint(SECRETS)


def test_a_child_keeps_what_configures_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"CUDA_VISIBLE_DEVICES": "1", "NCCL_DEBUG": "INFO", "OMP_WAIT_POLICY": "ACTIVE"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    environment = child_environment(local_ranks=2)
    assert given.items() <= environment.items()
    assert environment["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("reason", ["is a file", "can't be written to"])
def test_ranks_start_where_the_folder_of_caches_is_of_no_use(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches, others = tmp_path / "caches", tmp_path / "others"
    others.mkdir()
    if reason == "is a file":
        caches.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches))
    monkeypatch.setattr("tempfile.tempdir", str(others))
    monkeypatch.setattr(os, "access", lambda path, mode: caches not in Path(path).parents)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    folder = Path(child_environment()["TORCHINDUCTOR_CACHE_DIR"]).parent
    assert folder.parent == others
    assert folder.stat().st_mode & 0o077 == 0
