"""Prints what `device_weights` sees, in JSON."""

from __future__ import annotations

import json

import pretend_device

if __name__ == "__main__":
    pretend_device.install()
    from device_weights import seen

    print(json.dumps(seen()))
