"""The keys and values by which ranks find each other, on rank 0's side."""

from __future__ import annotations

from multimodal_gen.errors import ProtocolError
from multimodal_gen.messages.rendezvous import StoreCall, StoreReply


class KeptKeys:
    """Answers at once: who waits for a key asks again."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def answer(self, call: StoreCall) -> StoreReply:
        """Carry out `call`. Raises ProtocolError for an `add` to what is no number."""
        held = self._values.get(call.key)
        match call.op:
            case "set":
                self._values[call.key] = call.value
            case "add":
                self._values[call.key] = b"%d" % (_number(held or b"0") + _number(call.value))
            case "compare_set" if (held or b"") == call.expected:
                self._values[call.key] = call.value
            case "delete":
                return StoreReply(self._values.pop(call.key, None))
            case "count":
                return StoreReply(b"%d" % len(self._values))
        return StoreReply(self._values.get(call.key))


def _number(text: bytes) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ProtocolError("a number was to be added to another value") from error
