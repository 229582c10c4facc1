"""Thousands of results of a server, made from one."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from pathlib import Path

from multimodal_gen.serving.storage.rows import packed


def multiply(folder: Path, count: int, every_s: float = 600.0) -> None:
    """Add jobs to the data folder of a server that isn't running, until there are `count`: copies
    of its last one with files of their own, one every so many seconds up to now."""
    with contextlib.closing(sqlite3.connect(folder / "jobs.sqlite")) as db:
        db.row_factory = sqlite3.Row
        known = db.execute("SELECT count(*) FROM jobs").fetchone()[0]
        row = dict(db.execute("SELECT * FROM jobs ORDER BY number DESC LIMIT 1").fetchone())
        del row["number"]
        (file,) = (folder / "results").glob(f"{row['id']}-0.*")
        now = time.time()
        for number in range(known, count):
            row["id"] = f"{number:032x}"
            name = f"{row['id']}-0{file.suffix}"
            shutil.copy(file, folder / "results" / name)
            made_at = now - every_s * (count - number)
            row |= {"files": packed("files", (name,)), "created_at": made_at}
            row |= {"started_at": made_at, "completed_at": made_at}
            marks = ", ".join("?" * len(row))
            db.execute(f"INSERT INTO jobs ({', '.join(row)}) VALUES ({marks})", [*row.values()])
        db.commit()
