"""The environment of every Python process that this project starts: a short list of variables, no
secrets, and no search path that leads to the working folder."""

from __future__ import annotations

import contextlib
import os
import sysconfig
import tempfile
from pathlib import Path

from multimodal_gen.launch.cores import usable_cores

PASSED = """
    CC CONDA_PREFIX CPATH CXX HOME LANG LANGUAGE LD_LIBRARY_PATH LD_PRELOAD LIBRARY_PATH LOGNAME
    MULTIMODAL_GEN_LOG_LEVEL MULTIMODAL_GEN_MEASUREMENTS_FILE NVIDIA_TF32_OVERRIDE
    NVIDIA_VISIBLE_DEVICES PATH TEMP TMP TMPDIR TZ USER VIRTUAL_ENV XDG_CACHE_HOME
"""
"""Names of the variables that a child inherits, besides those of `_LIBRARIES`."""
_LIBRARIES = """
    ATEN_ CUBLAS_ CUDA_ CUDNN_ DNNL_ DYLD_ FI_ GLOO_ GOMP_ GPU_ HIP_ HSA_ KMP_ LC_ MALLOC_
    MIOPEN_ MKL_ NCCL_ OMP_ ONEDNN_ OPENBLAS_ PYTHON PYTORCH_ RCCL_ ROCM_ ROCR_ TORCH TRITON_
    UCX_
"""
"""Prefixes of variables that configure numerical libraries, compilers and Python itself."""
_SECRET = ("KEY", "TOKEN", "SECRET", "PASSW", "CREDENTIAL")
"""Never inherited, whatever the prefix."""
_SEARCHED = ("PYTHONPATH", "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH")
"""Lists of folders in which an empty entry is the working folder."""


def child_environment(local_ranks: int = 1) -> dict[str, str]:
    """Environment of a child process that is one of `local_ranks` ranks on this host, or does a
    rank's work."""
    environment = {name: value for name, value in os.environ.items() if _is_passed(name)}
    for name in _SEARCHED:
        if folders := _absolute_only(environment.pop(name, "")):
            environment[name] = folders
    environment["PYTHONSAFEPATH"] = "1"
    environment["HF_HUB_OFFLINE"] = "1"  # The front has fetched everything that is needed.
    asked = (environment.get(name, "") for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"))
    spin = {name: value for name, value in environment.items() if name == "GOMP_SPINCOUNT"}
    environment |= usable_cores().environment(local_ranks, *asked) | spin
    if "PYTORCH_CUDA_ALLOC_CONF" not in environment:  # the older name of the same variable
        # Sizes vary from batch to batch: without it, blocks of one size are of no use for another.
        environment.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    # torch creates this folder whether or not it compiles, by default among the temporary files.
    if "TORCHINDUCTOR_CACHE_DIR" not in environment:
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(_writable_cache_folder() / "torchinductor")
    home = str(Path(__file__).absolute().parents[2])
    if home not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        # The package is not installed but found on this process's sys.path: children run the same
        # code.
        paths = filter(None, [home, environment.get("PYTHONPATH")])
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def cache_folder() -> Path:
    """Folder of what can be made again: measured costs, compiled kernels."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "multimodal_gen"


def _writable_cache_folder() -> Path:
    """The folder of caches, or one of the user's own among the temporary files where that can't be
    written to: ranks would not start."""
    folder, other = cache_folder(), Path(tempfile.gettempdir()) / f"multimodal_gen-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    with contextlib.suppress(OSError):
        other.mkdir(mode=0o700, exist_ok=True)
    return other


def _is_passed(name: str) -> bool:
    secret = any(word in name.upper() for word in _SECRET)
    return not secret and (name in PASSED.split() or name.startswith(tuple(_LIBRARIES.split())))


def _absolute_only(folders: str) -> str:
    return os.pathsep.join(filter(os.path.isabs, folders.split(os.pathsep)))
