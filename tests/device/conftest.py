"""What all of these tests read is seen by one process, in half a minute."""

from typing import Any

import pytest
from device_process import run_on_device


@pytest.fixture(scope="session")
def seen() -> dict[str, Any]:
    seen: dict[str, Any] = run_on_device("see_on_device.py", "--json")
    return seen
