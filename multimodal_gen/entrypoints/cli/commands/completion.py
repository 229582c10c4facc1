"""`multimodal-gen completion`."""

from __future__ import annotations

import re
from typing import Literal

Shell = Literal["bash", "zsh", "fish"]


def completion(shell: Shell, /) -> int:
    """Print a script that completes commands, options and their choices.

    bash: eval "$(multimodal-gen completion bash)" in ~/.bashrc.
    zsh: multimodal-gen completion zsh > a file _multimodal-gen in a folder of $fpath.
    fish: multimodal-gen completion fish > ~/.config/fish/completions/multimodal-gen.fish.

    Parameters
    ----------
    shell
        bash, zsh or fish.
    """
    from multimodal_gen.entrypoints.cli.main import NAME, app

    print(_with_files(app.generate_completion(prog_name=NAME, shell=shell)))
    return 0


def _with_files(script: str) -> str:
    """Complete names of files where the library knows of nothing else: its options for paths may
    also be names on the hub, or `-`, and are declared as texts."""
    script = script.replace("complete -F ", "complete -o default -F ")  # bash
    return re.sub(r":((?:[\w-]+-)?(?:path|dir|file)|from)'", r":\1:_files'", script)  # zsh
