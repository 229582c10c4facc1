"""Trains the model that ships with multimodal_gen: from public packages to the finished folder.

Everything it makes on the way is kept in --work; run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from workshop import FULL, REDUCED, Settings, Workshop


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("train_bundled_model", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bundled_model"), help="finished folder")
    parser.add_argument("--work", type=Path, default=Path("work"), help="what it resumes from")
    parser.add_argument("--grids", type=Path, help="write sample grids into this folder, too")
    parser.add_argument("--minutes", type=float, help=f"of training (default {FULL.minutes:g})")
    parser.add_argument("--reduced", action="store_true", help="a tiny run, to see that it works")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    kept = args.work / "settings.json"
    if args.worker:
        stage, rank, world = args.worker
        settings = Settings(**json.loads(kept.read_text()))
        Workshop(args.work, settings).work(stage, int(rank), int(world))
        return
    settings = REDUCED if args.reduced else FULL
    if args.minutes is not None:
        settings = settings._replace(minutes=args.minutes)
    args.work.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(settings._asdict()))
    Workshop(args.work, settings).make(args.out, args.grids)


if __name__ == "__main__":
    main()
