"""Mistakes of newcomers in Python: each is answered with one line that leads to the right call.

No engine is real here: the model is, as its `ModelInfo`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from fake_engine import FakeEngine
from http_serving import MODEL
from PIL import Image

import multimodal_gen
from multimodal_gen import (
    DiffusionGenerator,
    GenerationResults,
    SamplingParams,
    ServerArgs,
)
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest, MultimodalGenError

RED = Image.new("RGB", (32, 32), "red")
ARRAY = np.asarray(RED)
DAMAGED = b"not an image"
STARTS = msgspec.structs.replace(MODEL, tasks=("text-to-image", "image-to-image", "inpainting"))
TEXT = str(Path(__file__))


class _Client(FakeEngine):
    """Refuses what it is given: no request of this module may be accepted."""

    address = "ipc://nowhere"

    def submit(self, req: Any, pictures: Any = ()) -> Any:
        raise AssertionError(f"accepted: {req}")

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(scope="module")
def generator() -> Iterator[DiffusionGenerator]:
    with DiffusionGenerator(cast(SchedulerClient, _Client(STARTS))) as generator:
        yield generator


GENERATE: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt": ({"hight": 64}, "hight=64: unknown; did you mean height?"),
    "the prompt's name": ({"promt": "b"}, "promt='b': unknown; did you mean prompt?"),
    "short name": ({"steps": 9}, "steps=9: unknown; did you mean num_inference_steps?"),
    "part of the name": (
        {"negative": "b"},
        "negative='b': unknown; did you mean negative_prompt?",
    ),
    "name in AUTOMATIC1111": (
        {"cfg_scale": 7},
        "cfg_scale=7: unknown; did you mean guidance_scale?",
    ),
    "name in diffusers": (
        {"num_images_per_prompt": 2},
        "num_images_per_prompt=2: unknown; did you mean num_outputs_per_prompt?",
    ),
    "size": ({"size": "64x64"}, "size='64x64': unknown; did you mean width and height?"),
    "nothing alike": (
        {"zzz": 1},
        "zzz=1: unknown; help(DiffusionGenerator.generate) lists all keywords",
    ),
    "where to save": (
        {"output_path": "a.png"},
        "output_path='a.png': unknown; a result is written with result.save(path)",
    ),
    "keyword of from_pretrained": (
        {"device": "cpu"},
        "device='cpu': is a keyword of DiffusionGenerator.from_pretrained",
    ),
    "keyword of stream": ({"previews": True}, "previews=True: is a keyword of stream and astream"),
    "text for a number": ({"width": "64"}, "width='64': must be a whole number"),
    "video": ({"num_frames": 9}, "num_frames=9: this model makes pictures, not videos"),
    "prompt without an enhancer": (
        {"enhance_prompt": True},
        "needs from_pretrained(prompt_enhancer=…)",
    ),
    "size that does not fit": (
        {"width": 33},
        "width=33: must be a multiple of 16; 32 or 48 are the nearest",
    ),
    "no such file": (
        {"image": "nowhere.png"},
        "image='nowhere.png': can't be read: No such file or directory",
    ),
    "no such file by path": (
        {"image_path": Path("nowhere.png")},
        "image_path='nowhere.png': can't be read: No such file or directory",
    ),
    "folder": ({"image": "/"}, "image='/': can't be read: Is a directory"),
    "URL": (
        {"image": "https://a/b.png"},
        "image='https://a/b.png': must be a file: URLs are not fetched",
    ),
    "file of another kind": ({"image": TEXT}, f"image='{TEXT}': can't be read as an image"),
    "file of another kind by path": (
        {"mask_path": TEXT, "image": RED},
        f"mask_path='{TEXT}': can't be read as an image",
    ),
    "bytes of another kind": (
        {"image": DAMAGED},
        "image=<12 bytes>: can't be read as an image",
    ),
    "video of another kind": ({"video": DAMAGED}, "video=<12 bytes>: can't be read as a video"),
    "channels first": (
        {"image": np.moveaxis(ARRAY, -1, 0)},
        "image=<ndarray of uint8, shape (3, 32, 32)>: must have shape [height, width, 3], "
        "[height, width, 4] or [height, width]: move the channels last with "
        "np.moveaxis(array, 0, -1)",
    ),
    "batch": (
        {"image": ARRAY[None]},
        "image=<ndarray of uint8, shape (1, 32, 32, 3)>: must have shape [height, width, 3], "
        "[height, width, 4] or [height, width]: give several in a list, image=[…]",
    ),
    "floats to 255": (
        {"image": ARRAY.astype(float)},
        "image=<ndarray of float64, shape (32, 32, 3)>: must be uint8 (0 to 255), bool, or floats "
        "from 0 to 1; it has 0 to 255",
    ),
    "NaN": (
        {"mask": np.full((8, 8), np.nan), "image": RED},
        "mask=<ndarray of float64, shape (8, 8)>: must be uint8 (0 to 255), bool, or floats from 0 "
        "to 1; it has nan to nan",
    ),
    "integers": (
        {"image": ARRAY.astype(int)},
        "image=<ndarray of int64, shape (32, 32, 3)>: must be uint8 (0 to 255), bool, or floats "
        "from 0 to 1: use .astype('uint8')",
    ),
    "no picture": (
        {"image": 3},
        "image=3: must be a path, the bytes of a file, a PIL image or a NumPy array",
    ),
    "open file": ({"image": io.BytesIO()}, "of an open file, use file.read()"),
    "twice": ({"image": RED, "image_path": "a"}, "image_path='a': can't be combined with image"),
    "image and images": ({"image": RED, "images": [RED]}, "can't be combined with image"),
    "too many": ({"images": [RED, RED]}, "images='2 images': at most 1 for this model"),
    "mask alone": ({"mask": RED}, "mask='a mask': requires an input image"),
    "last frame": ({"last_image": RED}, "last_image='a picture': "),
    "frames of other sizes": (
        {"video": [RED, RED.resize((8, 8))]},
        "video='2 frames': must have frames, all of one size",
    ),
    "LoRA of no kind": ({"lora": 3}, "lora=3: must be NAME or NAME:SCALE"),
}


@pytest.mark.parametrize("mistake", GENERATE)
def test_a_mistake_in_a_keyword_leads_to_the_right_call(
    mistake: str, generator: DiffusionGenerator
) -> None:
    given, message = GENERATE[mistake]
    with pytest.raises(InvalidRequest) as caught:
        generator.generate("a", **given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


CALLS: dict[str, tuple[Callable[[DiffusionGenerator], object], type[Exception], str]] = {
    "prompt of no kind": (
        lambda generator: generator.generate(cast(Any, 3)),
        InvalidRequest,
        "prompt=3: must be text, SamplingParams or a list of these",
    ),
    "list for a stream": (
        lambda generator: generator.stream(cast(Any, ["a"])),
        InvalidRequest,
        "prompt=['a']: must be text or SamplingParams; generate takes lists of these",
    ),
    "path for the class": (
        lambda _: DiffusionGenerator(cast(Any, "FLUX.1")),
        InvalidRequest,
        "client='FLUX.1': load a model with DiffusionGenerator.from_pretrained(model_path)",
    ),
    "no such model": (
        lambda _: DiffusionGenerator.from_pretrained("/no/such"),
        InvalidCheckpoint,
        "model_path='/no/such': no such file or folder",
    ),
    "misspelt argument": (
        lambda _: DiffusionGenerator.from_pretrained(**cast(Any, {"gpus": 2})),
        InvalidRequest,
        "gpus=2: unknown; did you mean num_gpus?",
    ),
    "diffusers' argument": (
        lambda _: DiffusionGenerator.from_pretrained(**cast(Any, {"torch_dtype": "auto"})),
        InvalidRequest,
        "torch_dtype='auto': unknown; did you mean dtype?",
    ),
    "argument of generate": (
        lambda _: DiffusionGenerator.from_pretrained(**cast(Any, {"seed": 7})),
        InvalidRequest,
        "seed=7: is a keyword of generate and stream",
    ),
    "argument of serve": (
        lambda _: DiffusionGenerator.from_pretrained(**cast(Any, {"api_key": "secret"})),
        InvalidRequest,
        "api_key='…': is an option of `multimodal-gen serve`",
    ),
    "device that is none": (
        lambda _: DiffusionGenerator.from_pretrained(device=cast(Any, "gpu")),
        InvalidRequest,
        "device='gpu': must be one of auto, cpu, cuda",
    ),
    "folder that is none": (
        lambda _: DiffusionGenerator.from_pretrained(lora_dir=Path("/no/such")),
        InvalidRequest,
        "lora_dir='/no/such': must be a folder",
    ),
    "address of no kind": (
        lambda _: DiffusionGenerator.connect("localhost:30000"),
        InvalidRequest,
        "address='localhost:30000': must start with ipc://",
    ),
    "misspelt class": (
        lambda _: cast(Any, multimodal_gen).DiffusionGenerater,
        AttributeError,
        "module 'multimodal_gen' has no attribute 'DiffusionGenerater'; did you mean "
        "DiffusionGenerator?",
    ),
    "class without a model": (
        lambda _: DiffusionGenerator(),
        InvalidRequest,
        "client=None: load a model with DiffusionGenerator.from_pretrained(model_path)",
    ),
    "number for a model": (
        lambda _: DiffusionGenerator.from_pretrained(cast(Any, 3)),
        InvalidRequest,
        "model_path=3: must be a folder, a file, a hub name or None",
    ),
    "quantization that is none": (
        lambda _: DiffusionGenerator.from_pretrained(quantization=cast(Any, "int4")),
        InvalidRequest,
        "quantization='int4': must be one of int8, fp8, nf4",
    ),
    "pictures of a list": (
        lambda _: cast(Any, GenerationResults()).images,
        AttributeError,
        "a list of results has no images: each of its results has, such as results[0].images",
    ),
    "misspelt field": (
        lambda _: SamplingParams(**cast(Any, {"promt": "a"})),
        InvalidRequest,
        "promt='a': unknown; did you mean prompt?",
    ),
    "misspelt server argument": (
        lambda _: ServerArgs(**cast(Any, {"prt": 1})),
        InvalidRequest,
        "prt=1: unknown; did you mean port?",
    ),
    "bytes for a prompt": (
        lambda generator: generator.generate(cast(Any, b"a")),
        InvalidRequest,
        "prompt=<1 bytes>: must be text",
    ),
    "misspelt parameter": (
        lambda _: SamplingParams(prompt="a").updated(sede=7),
        InvalidRequest,
        "sede=7: unknown; did you mean seed?",
    ),
}


@pytest.mark.parametrize("mistake", CALLS)
def test_a_mistaken_call_leads_to_the_right_one(
    mistake: str, generator: DiffusionGenerator
) -> None:
    call, kind, message = CALLS[mistake]
    with pytest.raises(kind) as caught:
        call(generator)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stream_names_an_input_as_it_was_typed(generator: DiffusionGenerator) -> None:
    with pytest.raises(InvalidRequest, match=r"^images='2 images': at most 1") as caught:
        next(generator.stream("a", images=[RED, RED]))
    assert caught.value.field == "images"


def test_of_a_list_each_error_names_an_input_as_it_was_typed(
    generator: DiffusionGenerator,
) -> None:
    with pytest.raises(MultimodalGenError) as caught:
        generator.generate(["a", "b"], mask=RED)
    assert [str(error) for error in caught.value.siblings] == 2 * [
        "mask='a mask': requires an input image"
    ]
