"""Runs a rank whose model is never loaded."""

import threading

from multimodal_gen.runtime import rank
from multimodal_gen.runtime.managers.gpu_worker import GPUWorker

if __name__ == "__main__":
    GPUWorker.load = lambda *_: threading.Event().wait()
    rank.main()
