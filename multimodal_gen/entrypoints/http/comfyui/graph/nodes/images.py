"""Images and masks that graphs load, and steps before they are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from multimodal_gen.entrypoints.http.comfyui.graph.definition import (
    MAX_SIDE,
    Input,
    Meaning,
    NodeClass,
    choice,
    flag,
    integer,
    link,
    real,
)
from multimodal_gen.entrypoints.http.comfyui.graph.image_steps import (
    METHODS,
    CropStep,
    ImageStep,
    PadStep,
    ScaleStep,
)
from multimodal_gen.entrypoints.http.comfyui.graph.node_inputs import NodeInputs
from multimodal_gen.entrypoints.http.comfyui.graph.nodes.upscaling import scaled_by
from multimodal_gen.entrypoints.http.comfyui.graph.values import (
    DecodedImages,
    ImageList,
    LoadedImage,
    LoadedMask,
    SizeOf,
)

_CHANNELS = ("alpha", "red", "green", "blue")


def images(uploads: Sequence[str]) -> tuple[NodeClass, ...]:
    file = Input("COMBO", {"image_upload": True}, choices=tuple(uploads), open=True)
    return (*_loaders(file), *_steps(), *_masks())


def _loaders(file: Input) -> tuple[NodeClass, ...]:
    return (
        NodeClass("LoadImage", "Load Image", "image", {"image": file}, _load, ("IMAGE", "MASK")),
        NodeClass(
            "LoadImageMask",
            "Load Image (as Mask)",
            "mask",
            {"image": file, "channel": choice(*_CHANNELS)},
            _load_mask,
            ("MASK",),
        ),
    )


def _load(inputs: NodeInputs) -> tuple[object, ...]:
    image = LoadedImage(inputs.node.id, inputs.value("image"))
    return image, LoadedMask(image)


def _load_mask(inputs: NodeInputs) -> tuple[object, ...]:
    image = LoadedImage(inputs.node.id, inputs.value("image"))
    return (LoadedMask(image, inputs.value("channel")),)


def _steps() -> tuple[NodeClass, ...]:
    image, method = {"image": link("IMAGE")}, {"upscale_method": choice(*METHODS)}
    size = {side: integer(512, 0, MAX_SIDE) for side in ("width", "height")}
    box = {side: integer(512, 1, MAX_SIDE) for side in ("width", "height")}
    corner = {side: integer(0, 0, MAX_SIDE) for side in ("x", "y")}
    border = {side: integer(0, 0, MAX_SIDE, 8) for side in ("left", "top", "right", "bottom")}
    total = {"megapixels": real(1.0, 0.01, 16.0), "resolution_steps": _STEPS}
    crop = {"crop": choice("disabled", "center")}
    return (
        _step("ImageScale", {**image, **method, **size, **crop}, _scale),
        _step("ImageScaleBy", {**image, **method, "scale_by": real(1.0, 0.01, 8.0)}, _scale_by),
        _step("ImageScaleToTotalPixels", {**image, **method, **total}, _scale_to_pixels),
        _step("ImageScaleToMaxDimension", {**image, **method, "largest_size": _LARGEST}, _scale_to),
        _step("ImageCrop", {**image, **box, **corner}, _crop),
        _step("FluxKontextImageScale", image, _resize_by_model),
        _step("LTXVPreprocess", {**image, "img_compression": integer(35, 0, 100)}, _uncompressed),
        _step("ImageBatch", {"image1": link("IMAGE"), "image2": link("IMAGE")}, _batch),
        NodeClass(
            "ImagePadForOutpaint",
            "Pad Image for Outpainting",
            "image",
            {**image, **border, "feathering": integer(40, 0, MAX_SIDE)},
            _pad,
            ("IMAGE", "MASK"),
        ),
        NodeClass(
            "GetImageSize",
            "Get Image Size",
            "image",
            image,
            _measure,
            ("INT", "INT", "INT"),
            ("width", "height", "batch_size"),
        ),
    )


_STEPS = integer(1, 1, 256, optional=True)
_LARGEST = integer(512, 1, MAX_SIDE)


def _step(name: str, inputs: dict[str, Input], meaning: Meaning) -> NodeClass:
    return NodeClass(name, name, "image", inputs, meaning, ("IMAGE",))


def _then(inputs: NodeInputs, step: ImageStep) -> LoadedImage:
    try:
        return inputs.image().then(step)
    except ValueError as error:
        raise inputs.refused("image", str(error)) from error


def _batch(inputs: NodeInputs) -> tuple[object, ...]:
    return (ImageList((*inputs.images("image1"), *inputs.images("image2"))),)


def _scale(inputs: NodeInputs) -> tuple[object, ...]:
    width, height = inputs.value("width"), inputs.value("height")
    centre = inputs.value("crop") == "center"
    step = ScaleStep(inputs.value("upscale_method"), width, height, centre)
    return (_then(inputs, step),)


def _scale_by(inputs: NodeInputs) -> tuple[object, ...]:
    if isinstance(found := inputs.anything("image"), DecodedImages):
        return (scaled_by(inputs, found),)
    step = ScaleStep(inputs.value("upscale_method"), factor=inputs.value("scale_by"))
    return (_then(inputs, step),)


def _scale_to_pixels(inputs: NodeInputs) -> tuple[object, ...]:
    step = ScaleStep(inputs.value("upscale_method"), megapixels=inputs.value("megapixels"))
    return (_then(inputs, step),)


def _scale_to(inputs: NodeInputs) -> tuple[object, ...]:
    step = ScaleStep(inputs.value("upscale_method"), longest=inputs.value("largest_size"))
    return (_then(inputs, step),)


def _crop(inputs: NodeInputs) -> tuple[object, ...]:
    x, y, width, height = (inputs.value(name) for name in ("x", "y", "width", "height"))
    return (_then(inputs, CropStep(x, y, width, height)),)


def _resize_by_model(inputs: NodeInputs) -> tuple[object, ...]:
    return (replace(inputs.image(), resized_by_model=True),)


def _uncompressed(inputs: NodeInputs) -> tuple[object, ...]:
    if inputs.peek("img_compression"):
        inputs.ignored.add("img_compression")
    return (inputs.image(),)


def _pad(inputs: NodeInputs) -> tuple[object, ...]:
    left, top, right, bottom = (inputs.value(n) for n in ("left", "top", "right", "bottom"))
    border = PadStep(left, top, right, bottom, inputs.value("feathering"))
    return _then(inputs, border), LoadedMask(inputs.image(), border=border)


def _measure(inputs: NodeInputs) -> tuple[object, ...]:
    return tuple(SizeOf(inputs.image(), axis) for axis in range(3))


def _masks() -> tuple[NodeClass, ...]:
    mask = {"mask": link("MASK")}
    grow = {"expand": integer(0, -MAX_SIDE, MAX_SIDE), "tapered_corners": flag(True)}
    channel = {"channel": choice("red", "green", "blue", "alpha")}
    return (
        _mask("ImageToMask", {"image": link("IMAGE"), **channel}, _channel),
        _mask("InvertMask", mask, _invert),
        _mask("GrowMask", {**mask, **grow}, _grow),
    )


def _mask(name: str, inputs: dict[str, Input], meaning: Meaning) -> NodeClass:
    return NodeClass(name, name, "mask", inputs, meaning, ("MASK",))


def _channel(inputs: NodeInputs) -> tuple[object, ...]:
    # ComfyUI's images have no alpha: its channel of an image without one is white.
    if (channel := inputs.value("channel")) == "alpha":
        raise inputs.refused("channel", "must be red, green or blue: images have no alpha")
    return (LoadedMask(inputs.image(), channel),)


def _invert(inputs: NodeInputs) -> tuple[object, ...]:
    mask = inputs.linked("mask", LoadedMask)
    if mask.grow or mask.border:
        raise inputs.refused("mask", "must be inverted before it grows, and not be a border")
    return (replace(mask, inverted=not mask.inverted),)


def _grow(inputs: NodeInputs) -> tuple[object, ...]:
    mask, by = inputs.linked("mask", LoadedMask), inputs.value("expand")
    if by < 0:
        raise inputs.refused("expand", "must be at least 0")
    if by and inputs.peek("tapered_corners"):
        inputs.ignored.add("tapered_corners")
    # Grown by half of it on each side; see `_grown`.
    return (replace(mask, grow=mask.grow + 2 * by),)
