"""Put on PYTHONPATH by a test, this plants faults in the ranks that the test starts.

`RANK_FAULTS` is a list of `word=method:rank:how`, for instance `poison=predict:1:raise`: when a
prompt says the word, that method of the FLUX pipeline raises, hangs or dies on that rank (or all).
A number after it, `poison=predict:1:raise:5`, says at which call that happens.
"""

import ctypes
import os
import signal
import sys
import threading
import time

HOW = ("raise", "memory", "hang", "die", "segfault", "exit", "thread")


def fail_in_a_thread() -> None:
    def fail():
        raise RuntimeError("a planted fault")

    failing = threading.Thread(target=fail)
    failing.start()
    failing.join()


def plant(word: str, method: str, rank: str, how: str, call: str = "1") -> None:
    from multimodal_gen.runtime.pipelines.families import flux

    assert how in HOW, how
    calls = 0
    original = getattr(flux.FluxPipeline, method)

    def prompts(argument):
        """Of Rows, which have several params, of states, or of one SamplingParams."""
        params = getattr(argument, "params", argument)
        several = params if isinstance(params, list | tuple) else [params]
        return [getattr(one, "params", one).prompt for one in several]

    def faulty(self, argument, *args, **kwargs):
        nonlocal calls
        ours = rank == "all" or self.context.mesh.rank == int(rank)
        meant = ours and any(word in prompt for prompt in prompts(argument))
        calls += meant
        if meant and calls >= int(call):
            if how == "thread":
                fail_in_a_thread()
                return original(self, argument, *args, **kwargs)
            if how == "raise":
                raise RuntimeError("a planted fault")
            if how == "memory":
                raise MemoryError
            if how == "hang":
                time.sleep(3600)
            if how == "segfault":
                ctypes.string_at(0)
            if how == "exit":
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, argument, *args, **kwargs)

    setattr(flux.FluxPipeline, method, faulty)


if "RANK_FAULTS" in os.environ and "multimodal_gen.runtime.rank" in sys.orig_argv:
    for fault in os.environ["RANK_FAULTS"].split():
        word, where = fault.split("=")
        plant(word, *where.split(":"))
