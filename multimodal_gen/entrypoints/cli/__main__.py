"""The process of `multimodal-gen`, also as `python -m multimodal_gen.entrypoints.cli`."""

import os
import sys


def run() -> int:
    """Run one command without modules of the working folder, where a downloaded checkpoint may hold
    a `queue.py`: `python -m` searches it first, and so does an empty entry of PYTHONPATH."""
    _open_what_is_closed()
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    try:
        here = {os.path.abspath(name) for name in (*named, "") if not os.path.isabs(name)}
    except OSError:  # The working folder is gone, and so are its modules.
        here = set()
    sys.path[:] = [folder for folder in sys.path if folder and folder not in here]
    from multimodal_gen.entrypoints.cli.main import main

    return main()


def _open_what_is_closed() -> None:
    """Give the standard streams that the caller closed (`>&-`) a place where nothing is, before a
    file that is opened takes their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(run())
