"""Two "machines": namespaces with processes, mounts and a network of their own, and a cable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from places import python_path

ADDRESSES = ("10.77.0.1", "10.77.0.2")
_ASK = """
import base64, httpx2, sys
body = {"prompt": "a red heart", "seed": 1, "response_format": "b64_json", "n": 1}
body["num_inference_steps"] = int(sys.argv[2])
reply = httpx2.post(sys.argv[1] + "/v1/images/generations", json=body, timeout=300)
assert reply.status_code == 200, reply.text
sys.stdout.buffer.write(base64.b64decode(reply.json()["data"][0]["b64_json"]))
"""


def can_be_made() -> bool:
    """Whether this user may make namespaces and links between them."""
    commands = "ip link add eth type veth peer name other"
    tried = ["unshare", "-n", "-m", "-p", "--fork", "sh", "-c", commands]
    try:
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


class Machine:
    """A machine with one network interface, called eth."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        command = ["unshare", "-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc"]
        self._holder = subprocess.Popen([*command, "sleep", "infinity"])
        stack.callback(self._holder.wait)
        stack.callback(self._holder.kill)
        self.pid = self._child()
        self._stack = stack
        self._folder = folder
        folder.mkdir()

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Run a command on it; what it says goes to the file `said`."""
        own = {name: str(self._folder) for name in ("TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
        environment = {**os.environ, **own, "PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"}
        with self.said.open("ab") as said:
            process = subprocess.Popen(self._inside(*command), env=environment, stderr=said)
        self._stack.callback(process.wait)
        return process

    def ask(self, url: str, steps: int) -> subprocess.Popen[bytes]:
        """Ask a server for a picture; it is the output."""
        command = self._inside(sys.executable, "-c", _ASK, url, str(steps))
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    def run(self, *command: str) -> None:
        """Run a command in its network."""
        subprocess.run(["nsenter", "-t", str(self.pid), "-n", *command], check=True)

    @property
    def said(self) -> Path:
        return self._folder / "said"

    def processes(self) -> list[int]:
        """All but the one that holds the namespaces."""
        own = os.readlink(f"/proc/{self.pid}/ns/pid")
        pids = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
        return [pid for pid in pids if pid != self.pid and _namespace(pid) == own]

    def ranks(self) -> list[int]:
        return [pid for pid in self.processes() if "runtime.rank" in _command(pid)]

    def signal(self, number: signal.Signals, word: str = "") -> None:
        """Send a signal to all of its processes, or those with `word` on the command line."""
        for pid in [pid for pid in self.processes() if word in _command(pid)]:
            os.kill(pid, number)

    def _inside(self, *command: str) -> Sequence[str]:
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "-p", *command]

    def _child(self) -> int:
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        return int(until(lambda: children.read_text().strip(), 10))


def connect(one: Machine, other: Machine) -> None:
    """Lay a cable between them."""
    one.run(
        "ip", "link", "add", "eth", "type", "veth", "peer", "name", "eth", "netns", str(other.pid)
    )
    for machine, address in zip((one, other), ADDRESSES, strict=True):
        machine.run("ip", "link", "set", "lo", "up")
        machine.run("ip", "address", "add", f"{address}/24", "dev", "eth")
        machine.run("ip", "link", "set", "eth", "up")


def until(find: Callable[[], object], seconds: float) -> str:
    """What `find` returns once it is true."""
    end = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return str(found)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""
