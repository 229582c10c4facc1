"""OpenAI's own client, against `multimodal-gen serve`: python openai_client.py [URL]"""

import base64
import pathlib
import sys

from openai import APIConnectionError, OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:30000"

with OpenAI(base_url=f"{url}/v1", api_key="none") as client:
    try:
        reply = client.images.generate(
            model="any",
            prompt="a red heart",
            size="96x96",
            n=2,
            extra_body={"seed": 7, "num_inference_steps": 20},
        )
    except APIConnectionError:
        sys.exit(f"no server answers at {url}: start one with `multimodal-gen serve`")
for number, image in enumerate(reply.data or []):
    pathlib.Path(f"heart-{number}.png").write_bytes(base64.b64decode(image.b64_json or ""))
