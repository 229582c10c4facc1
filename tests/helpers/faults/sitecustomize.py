"""Put on PYTHONPATH by a test, this plants faults in the ranks that the test starts.

`RANK_FAULTS` is a list of `word=method:rank:how`, for instance `poison=predict:1:raise`: when a
prompt says the word, that method of the FLUX pipeline raises, hangs or dies on that rank (or all).
"""

import os
import signal
import sys
import time

HOW = ("raise", "memory", "hang", "die")


def plant(word: str, method: str, rank: str, how: str) -> None:
    from multimodal_gen.runtime.pipelines.families import flux

    assert how in HOW, how
    original = getattr(flux.FluxPipeline, method)

    def prompts(argument):
        """Of Rows, which have several params, or of one SamplingParams."""
        params = getattr(argument, "params", argument)
        return [one.prompt for one in (params if isinstance(params, list | tuple) else [params])]

    def faulty(self, argument, *args, **kwargs):
        ours = rank == "all" or self.context.mesh.rank == int(rank)
        if ours and any(word in prompt for prompt in prompts(argument)):
            if how == "raise":
                raise RuntimeError("a planted fault")
            if how == "memory":
                raise MemoryError
            if how == "hang":
                time.sleep(3600)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, argument, *args, **kwargs)

    setattr(flux.FluxPipeline, method, faulty)


if "RANK_FAULTS" in os.environ and "multimodal_gen.runtime.rank" in sys.orig_argv:
    for fault in os.environ["RANK_FAULTS"].split():
        word, where = fault.split("=")
        plant(word, *where.split(":"))
