"""Sections of the routes' documentation, which are the tags of their schema, in order."""

from __future__ import annotations

IMAGES = "OpenAI: images"
VIDEOS = "OpenAI: videos"
HUGGING_FACE = "Hugging Face"
A1111 = "AUTOMATIC1111"
COMFYUI = "ComfyUI"
JOBS = "Jobs and files"
MODELS = "Models"
OPERATION = "Health, monitoring and pages"

SECTIONS = {
    IMAGES: "For the openai package and everything that speaks OpenAI's image API: its client's "
    "base_url is this server's address with /v1.",
    VIDEOS: "Videos are jobs: accepted at once, polled, then downloaded.",
    HUGGING_FACE: "For huggingface_hub's InferenceClient, whose model is this server's address "
    "with /hf.",
    A1111: "For clients of AUTOMATIC1111's web UI, such as SillyTavern and Open WebUI. Pictures "
    "are base64.",
    COMFYUI: "For clients of ComfyUI: graphs in its API format. Each route is there with /api in "
    "front, too; progress is told at the WebSocket /ws.",
    JOBS: "Requests that outlive a connection and a restart of the server, and their results. "
    "GET /v1/jobs/events tells their progress as server-sent events.",
    MODELS: "Models that are served, and what they can do.",
    OPERATION: "For probes, Prometheus and whoever runs the server.",
}
"""What each section is for."""
