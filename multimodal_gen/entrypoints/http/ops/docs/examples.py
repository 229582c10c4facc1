"""An example of each route. Tests run all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimodal_gen.entrypoints.http.ops.docs.route_example import SERVER, RouteExample

_HEART = {"prompt": "a red heart"}
_GRAPH: Mapping[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "bundled_model"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red heart", "clip": ["1", 1]}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
    "4": {
        "class_type": "EmptyLatentImage",
        "inputs": {"width": 96, "height": 96, "batch_size": 1},
    },
    "5": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["1", 0],
            "positive": ["2", 0],
            "negative": ["3", 0],
            "latent_image": ["4", 0],
            "seed": 1,
            "steps": 20,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "simple",
            "denoise": 1.0,
        },
    },
    "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
    "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "heart"}},
}
_CLIENT = f"""\
import openai

client = openai.OpenAI(base_url="{SERVER}/v1", api_key="none")
"""
_HUB = f"""\
from huggingface_hub import InferenceClient

image = InferenceClient("{SERVER}/hf").text_to_image("a red heart")
image.save("heart.png")
"""
_GENERATE = f"""\
import base64

{_CLIENT}
reply = client.images.generate(prompt="a red heart", extra_body={{"seed": 1}})
with open("heart.png", "wb") as file:
    file.write(base64.b64decode(reply.data[0].b64_json))
print(reply.usage)
"""
_EDIT = f"""\
{_CLIENT}
with open("boat.png", "rb") as image:
    reply = client.images.edit(image=image, prompt="a red boat", extra_body={{"strength": 0.6}})
print(reply.data[0].b64_json[:20])
"""
_VIDEO = f"""\
{_CLIENT}
video = client.videos.create_and_poll(prompt="a boat at sea", seconds="1")
client.videos.download_content(video.id).write_to_file("boat.mp4")
"""

_OPENAI = {
    "POST /v1/images/generations": RouteExample(
        body={**_HEART, "n": 2, "size": "96x96", "seed": 1}, python=_GENERATE
    ),
    "POST /v1/images/edits": RouteExample(
        form={"image": "@boat.png", "mask": "@mask.png", "prompt": "a red boat"}, python=_EDIT
    ),
    "POST /v1/images/variations": RouteExample(form={"image": "@boat.png", "n": "2"}),
    "POST /v1/videos": RouteExample(
        body={"prompt": "a boat at sea", "seconds": "1"}, python=_VIDEO
    ),
    "GET /v1/videos": RouteExample(path="/v1/videos?limit=5"),
    "POST /v1/videos/sync": RouteExample(body={"prompt": "a boat at sea"}, save="boat.mp4"),
    "GET /v1/videos/{video_id}": RouteExample(path="/v1/videos/$VIDEO"),
    "GET /v1/videos/{video_id}/content": RouteExample(
        path="/v1/videos/$VIDEO/content", save="boat.mp4"
    ),
    "POST /v1/videos/{video_id}/remix": RouteExample(
        path="/v1/videos/$VIDEO/remix", body={"prompt": "a boat at night"}
    ),
    "DELETE /v1/videos/{video_id}": RouteExample(path="/v1/videos/$VIDEO"),
    "POST /v1/videos/edits": RouteExample(body={"prompt": "a boat at night"}, status=400),
    "POST /v1/videos/extensions": RouteExample(body={"prompt": "a boat at night"}, status=400),
    "POST /v1/videos/characters": RouteExample(body={"name": "Anna"}, status=400),
    "GET /v1/videos/characters/{character_id}": RouteExample(
        path="/v1/videos/characters/anna", status=404
    ),
}
_HUGGING_FACE = {
    "POST /hf": RouteExample(
        body={"inputs": "a red heart", "parameters": {"seed": 1}}, save="heart.png", python=_HUB
    ),
    "POST /models/{model}": RouteExample(
        path="/models/bundled_model", body={"inputs": "a red heart"}, save="heart.png"
    ),
    "POST /": RouteExample(path="/", body={"inputs": "a red heart"}, save="heart.png"),
}
_LISTS = (
    *("sd-models", "samplers", "schedulers", "upscalers", "loras", "embeddings", "scripts"),
    *("latent-upscale-modes", "sd-vae", "hypernetworks", "face-restorers", "realesrgan-models"),
    *("prompt-styles", "script-info", "extensions", "options", "cmd-flags", "memory", "progress"),
)
_ACTS = ("interrupt", "skip", "refresh-vae", "refresh-loras", "refresh-checkpoints")
_A1111 = {
    "POST /sdapi/v1/txt2img": RouteExample(body={**_HEART, "steps": 20, "width": 96, "height": 96}),
    "POST /sdapi/v1/img2img": RouteExample(
        body={"prompt": "a red boat", "init_images": ["{boat.png}"], "denoising_strength": 0.6}
    ),
    "POST /sdapi/v1/extra-single-image": RouteExample(
        body={"image": "{boat.png}", "upscaler_1": "Lanczos", "upscaling_resize": 2}
    ),
    "POST /sdapi/v1/extra-batch-images": RouteExample(
        body={
            "imageList": [{"data": "{boat.png}", "name": "boat.png"}],
            "upscaler_1": "Lanczos",
            "upscaling_resize": 2,
        }
    ),
    "POST /sdapi/v1/png-info": RouteExample(body={"image": "{boat.png}"}),
    "POST /sdapi/v1/options": RouteExample(body={"sd_model_checkpoint": "bundled_model"}),
    "GET /controlnet/model_list": RouteExample(),
    "GET /controlnet/module_list": RouteExample(),
    **{f"GET /sdapi/v1/{name}": RouteExample() for name in _LISTS},
    **{f"POST /sdapi/v1/{name}": RouteExample() for name in _ACTS},
}
_COMFYUI = {
    "POST /prompt": RouteExample(body={"prompt": _GRAPH}),
    "GET /history/{prompt_id}": RouteExample(path="/history/$PROMPT"),
    "GET /history": RouteExample(path="/history?max_items=5"),
    "POST /history": RouteExample(body={"delete": ["$PROMPT"]}),
    "POST /queue": RouteExample(body={"clear": True}),
    "POST /interrupt": RouteExample(body={}),
    "POST /free": RouteExample(body={"free_memory": True}),
    "GET /view": RouteExample(path="/view?filename=$FILE&type=output", save="heart.png"),
    "POST /upload/image": RouteExample(form={"image": "@boat.png", "overwrite": "true"}),
    "GET /object_info/{node_class}": RouteExample(path="/object_info/KSampler"),
    "GET /models/{model}": RouteExample(path="/models/checkpoints"),
    "GET /experiment/models/{folder}": RouteExample(path="/experiment/models/checkpoints"),
    "GET /settings/{name}": RouteExample(path="/settings/Comfy.Locale"),
    **{
        f"GET /{name}": RouteExample()
        for name in (
            *("prompt", "queue", "object_info", "system_stats", "features", "embeddings"),
            *("models", "experiment/models", "extensions", "users", "settings"),
        )
    },
}
_OURS = {
    "GET /v1/jobs": RouteExample(path="/v1/jobs?limit=5"),
    "GET /v1/jobs/{job_id}": RouteExample(path="/v1/jobs/$JOB"),
    "DELETE /v1/jobs/{job_id}": RouteExample(path="/v1/jobs/$JOB"),
    "GET /v1/jobs/storage": RouteExample(),
    "POST /v1/jobs/zip": RouteExample(
        body={"outputs": [{"job": "$JOB", "index": 0}]}, save="results.zip"
    ),
    "POST /v1/jobs/{job_id}/outputs/{index}": RouteExample(
        path="/v1/jobs/$JOB/outputs/0", body={"starred": True}
    ),
    "DELETE /v1/jobs/{job_id}/outputs/{index}": RouteExample(path="/v1/jobs/$JOB/outputs/0"),
    "GET /v1/images/jobs/{job_id}": RouteExample(path="/v1/images/jobs/$JOB"),
    "DELETE /v1/images/jobs/{job_id}": RouteExample(path="/v1/images/jobs/$JOB"),
    "GET /files/{token}/{name}": RouteExample(path="/files/$TOKEN/$NAME", save="heart.png"),
    "GET /v1/models": RouteExample(),
    "GET /v1/models/{name}": RouteExample(path="/v1/models/bundled_model"),
    "POST /v1/models/{name}/load": RouteExample(path="/v1/models/bundled_model/load", admin=True),
    "POST /v1/models/{name}/unload": RouteExample(
        path="/v1/models/bundled_model/unload", admin=True, status=202
    ),
    "POST /v1/models/{name}/reload": RouteExample(
        path="/v1/models/bundled_model/reload", admin=True, status=202
    ),
    "GET /model_info": RouteExample(),
    "GET /model_info/known_words": RouteExample(),
    "POST /count_tokens": RouteExample(body={"prompt": "a red heart"}),
    "GET /operator/status": RouteExample(admin=True),
    **{
        f"GET {path}": RouteExample()
        for path in (
            *("/liveness", "/health", "/server_info", "/version", "/metrics", "/operator"),
            *("/", "/playground/access"),
        )
    },
}
EXAMPLES: Mapping[str, RouteExample] = {**_OPENAI, **_HUGGING_FACE, **_A1111, **_COMFYUI, **_OURS}
"""By method and path of the route."""
