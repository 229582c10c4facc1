"""`multimodal-gen completion`."""

from __future__ import annotations

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

    print(app.generate_completion(prog_name=NAME, shell=shell))
    return 0
