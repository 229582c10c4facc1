"""Pictures that come with a request: opened by the client, checked twice, and what size follows."""

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from multimodal_gen.configs.families import family_named
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.python.pictures import open_pictures
from multimodal_gen.errors import InvalidRequest, ProtocolError
from multimodal_gen.messages.codec import Decoder, FrameHeader, encode
from multimodal_gen.messages.model_info import ModelInfo, PictureSize, TaskName
from multimodal_gen.messages.pictures import Pictures, images_of, named_images
from multimodal_gen.messages.plan import Plan
from multimodal_gen.messages.request import ClientMessage, Submit
from multimodal_gen.messages.validation import requests_of, resolve
from multimodal_gen.postprocess.images import encode_image
from multimodal_gen.postprocess.metadata import Recipe, read_parameters

FAMILY = family_named("FluxPipeline")
IMAGE = {"image": FrameHeader((300, 400, 3))}
BOTH = {**IMAGE, "mask": FrameHeader((30, 40))}
Save = Callable[..., str]


SEVERAL = named_images([FrameHeader((30, 40, 3))] * 4)
VIDEO = {"video": FrameHeader((10, 300, 400, 3))}


def model(
    *tasks: TaskName,
    picture_size: PictureSize = "area",
    multiple: int = 16,
    images: int = 1,
    also: tuple[str, ...] = (),
) -> ModelInfo:
    strength = 0.6 if {"image-to-image", "inpainting"} & {*tasks} else None
    defaults = msgspec.structs.replace(
        FAMILY.defaults, width=512, height=512, strength=strength, inpainting_strength=0.9
    )
    return ModelInfo(
        name="m",
        family="f",
        tasks=tasks,
        defaults=defaults,
        limits=msgspec.structs.replace(FAMILY.limits, max_images=images, max_frames=9),
        size_multiple=multiple,
        picture_size=picture_size,
        frame_multiple=4,
        parameters=(*FAMILY.parameters, "num_frames", *also),
    )


ALL = model("text-to-image", "image-to-image", "inpainting")


@pytest.mark.parametrize(
    ("tasks", "pictures", "field"),
    [
        (["text-to-image"], IMAGE, "image_path"),
        (["text-to-video"], IMAGE, "image_path"),
        (["image-to-video"], {}, "image_path"),
        (["image-edit"], {}, "image_path"),
        (["text-to-image", "image-to-image"], BOTH, "mask_path"),
        (["inpainting"], IMAGE, "mask_path"),
        (["text-to-image", "inpainting"], {"mask": BOTH["mask"]}, "mask_path"),
    ],
)
def test_pictures_are_refused_where_the_model_does_not_take_or_lacks_them(
    tasks: list[TaskName], pictures: Pictures, field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolve(SamplingParams(), model(*tasks), pictures)
    assert refused.value.field == field


def test_images_are_named_and_listed_in_their_order() -> None:
    names = [f"picture {number}" for number in range(1, 13)]
    named = named_images(names)
    assert [*named][:3] == ["image", "image_2", "image_3"]
    shuffled = {"mask": "m", "last_image": "l", **dict(reversed(named.items()))}
    assert images_of(shuffled) == names
    assert images_of({"mask": "m"}) == []


def test_more_images_than_the_model_takes_are_refused_with_their_number() -> None:
    editing = model("text-to-image", "image-edit", images=3)
    resolve(SamplingParams(), editing, dict(list(SEVERAL.items())[:3]))
    with pytest.raises(InvalidRequest, match=r"image_path='4 images': at most 3 for this model"):
        resolve(SamplingParams(), editing, SEVERAL)
    with pytest.raises(InvalidRequest, match="only supports text-to-image"):
        resolve(SamplingParams(), model("text-to-image"), SEVERAL)


@pytest.mark.parametrize("names", [("image", "image_3"), ("image_2",), ("image", "image_1")])
def test_images_that_are_not_numbered_without_a_gap_are_refused(names: tuple[str, ...]) -> None:
    several = dict.fromkeys(names, SEVERAL["image"])
    with pytest.raises(InvalidRequest, match="must be numbered image, image_2"):
        resolve(SamplingParams(), model("text-to-image", "image-edit", images=3), several)


@pytest.mark.parametrize("name", ["image_", "picture", "control_x", "image_²", "video_2"])
def test_an_input_of_another_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="must be one of image, last_image, mask, video"):
        resolve(SamplingParams(), ALL, {**IMAGE, name: SEVERAL["image"]})


def test_a_last_frame_needs_a_model_that_takes_it_and_a_first_one() -> None:
    last = {"last_image": FrameHeader((30, 40, 3))}
    taking = model("image-to-video", "text-to-video", also=("last_image_path",))
    resolve(SamplingParams(), taking, {**IMAGE, **last})
    with pytest.raises(InvalidRequest, match=r"last_image_path.*requires a first frame"):
        resolve(SamplingParams(), taking, last)
    with pytest.raises(InvalidRequest, match=r"last_image_path.*takes no last frame"):
        resolve(SamplingParams(), model("image-to-video"), {**IMAGE, **last})


def test_a_last_frame_alone_sets_the_size_where_the_model_takes_it() -> None:
    taking = model("text-to-video", "image-to-video", also=("last_image_path",))
    taking = msgspec.structs.replace(taking, last_image_alone=True)
    frame = FrameHeader((300, 400, 3))
    last, first = (resolve(SamplingParams(), taking, {n: frame}) for n in ("last_image", "image"))
    assert (last.width, last.height) == (first.width, first.height) != (512, 512)


FROM_VIDEO = model("video-to-video", also=("video_path",))


def test_a_video_needs_a_model_that_takes_it_and_is_required_where_it_takes_nothing_else() -> None:
    resolved = resolve(SamplingParams(), FROM_VIDEO, VIDEO | {"video": FrameHeader((9, 30, 40, 3))})
    assert (resolved.width, resolved.height, resolved.num_frames) == (576, 448, 9)
    for pictures, taking, field in (
        ({}, FROM_VIDEO, "video_path=None: required"),
        (IMAGE, FROM_VIDEO, "image_path='a picture'"),
        (VIDEO, model("text-to-video"), "video_path='a video'"),
    ):
        with pytest.raises(InvalidRequest, match=field):
            resolve(SamplingParams(), taking, pictures)


@pytest.mark.parametrize(("frames", "made"), [(1, 1), (4, 1), (5, 5), (8, 5), (9, 9)])
def test_an_output_is_as_long_as_its_video(frames: int, made: int) -> None:
    video = {"video": FrameHeader((frames, 30, 40, 3))}
    assert resolve(SamplingParams(), FROM_VIDEO, video).num_frames == made


def test_of_a_longer_video_than_the_model_makes_the_frames_asked_for_are_taken() -> None:
    assert resolve(SamplingParams(num_frames=5), FROM_VIDEO, VIDEO).num_frames == 5
    with pytest.raises(InvalidRequest, match="video_path='10 frames': this model makes at most 9"):
        resolve(SamplingParams(), FROM_VIDEO, VIDEO)


def test_more_frames_than_a_video_has_are_refused_where_it_is_what_the_model_starts_from() -> None:
    starts = model("image-to-image", "video-to-video", also=("video_path",))
    assert resolve(SamplingParams(num_frames=9), starts, VIDEO).num_frames == 9
    short = {"video": FrameHeader((7, 300, 400, 3))}
    with pytest.raises(InvalidRequest, match="must be at most the input video's 7 frames"):
        resolve(SamplingParams(num_frames=9), starts, short)
    assert resolve(SamplingParams(num_frames=9), FROM_VIDEO, short).num_frames == 9


@pytest.mark.parametrize("shape", [(8, 8, 3), (0, 8, 8, 3), (5, 8, 8), (9, 9999, 9999, 3)])
def test_a_video_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="video_path"):
        resolve(SamplingParams(num_frames=5), FROM_VIDEO, {"video": FrameHeader(shape)})


@pytest.mark.parametrize(
    "shape", [(8, 8), (8, 8, 4), (0, 8, 3), (8,), (8, 8, 3, 1), (9999, 9999, 3)]
)
def test_an_image_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="image_path"):
        resolve(SamplingParams(), ALL, {"image": FrameHeader(shape)})


def test_a_path_is_never_sent_to_an_engine() -> None:
    with pytest.raises(InvalidRequest, match=r"image_path=.*opened by the client"):
        resolve(SamplingParams(image_path="a.png"), ALL, IMAGE)


def test_strength_needs_a_picture_and_a_model_that_starts_from_it() -> None:
    with pytest.raises(InvalidRequest, match="strength"):
        resolve(SamplingParams(strength=0.5), model("image-edit"), IMAGE)
    for strength, pictures in itertools.product((0, -0.1, 1.01, float("nan")), ({}, IMAGE)):
        with pytest.raises(InvalidRequest, match="strength"):
            resolve(SamplingParams(strength=strength), ALL, pictures)


def test_strength_without_a_picture_is_not_used_and_that_is_said() -> None:
    for each in (ALL, model("text-to-image")):
        (req,) = requests_of(SamplingParams(strength=0.5, seed=1), each)
        (warning,) = req.warnings
        assert (req.params.strength, warning.code, warning.field) == (None, "no_effect", "strength")
        assert str(warning) == "strength has no effect without an input image"


def test_strength_has_a_default_for_each_task_and_none_without_a_picture() -> None:
    given = [resolve(SamplingParams(), ALL, pictures).strength for pictures in ({}, IMAGE, BOTH)]
    assert given == [None, 0.6, 0.9]


@pytest.mark.parametrize(
    ("kind", "picture", "asked", "size"),
    [
        ("default", (300, 400), {}, (512, 512)),
        ("own", (301, 407), {}, (400, 288)),
        ("own", (5, 7), {}, (16, 16)),
        ("area", (300, 400), {}, (576, 448)),
        ("area", (300, 400), {"width": 800}, (800, 608)),
        ("area", (300, 400), {"height": 160}, (208, 160)),
        ("own", (300, 400), {"width": 32, "height": 48}, (32, 48)),
    ],
)
def test_the_size_follows_from_the_picture_where_none_is_asked_for(
    kind: PictureSize, picture: tuple[int, int], asked: dict[str, int], size: tuple[int, int]
) -> None:
    taking = model("image-to-image", picture_size=kind)
    resolved = resolve(SamplingParams(**asked), taking, {"image": FrameHeader((*picture, 3))})
    assert (resolved.width, resolved.height) == size


@pytest.mark.parametrize("pictures", [{}, IMAGE])
@pytest.mark.parametrize("asked", [{"width": 0}, {"height": 0}, {"width": 0, "height": 0}])
def test_a_size_of_zero_is_refused_and_not_taken_for_none(
    asked: dict[str, int], pictures: Pictures
) -> None:
    with pytest.raises(InvalidRequest, match=f"{next(iter(asked))}=0: must be 16 to"):
        resolve(SamplingParams(**asked), ALL, pictures)


def test_a_side_too_large_for_any_number_is_refused_before_the_other_follows_from_it() -> None:
    with pytest.raises(InvalidRequest, match="must be 16 to"):
        resolve(SamplingParams(width=10**400), ALL, IMAGE)


def test_a_picture_larger_than_the_model_allows_is_made_smaller_as_a_whole() -> None:
    resolved = resolve(
        SamplingParams(),
        model("image-to-image", picture_size="own"),
        {"image": FrameHeader((3000, 4000, 3))},
    )
    assert resolved.width is not None
    assert resolved.height is not None
    assert resolved.width * resolved.height <= FAMILY.limits.max_pixels
    assert resolved.width / resolved.height == pytest.approx(4 / 3, rel=0.02)


def test_an_image_of_numbers_that_are_no_pixels_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="pixels must be uint8"):
        resolve(SamplingParams(), ALL, {"image": FrameHeader((8, 8, 3), "float32")})


def test_pictures_cross_the_wire_beside_their_request() -> None:
    image = np.arange(300 * 400 * 3, dtype=np.uint8).reshape(300, 400, 3)
    mask = np.ones((30, 40), np.uint8)
    first, second = requests_of(SamplingParams(num_outputs_per_prompt=2), ALL, BOTH)
    message, arrays = Decoder(ClientMessage).decode(encode(Submit(first), [image, mask]))
    assert message == Submit(first)
    np.testing.assert_array_equal(arrays[0], image)
    plan = Plan(number=0, admit=(first, second))
    told, arrays = Decoder(Plan).decode(encode(plan, [image, mask, image, mask]))
    assert told == plan
    np.testing.assert_array_equal(arrays[3], mask)


def test_a_picture_that_is_announced_and_not_sent_is_refused() -> None:
    (req,) = requests_of(SamplingParams(), ALL, IMAGE)
    with pytest.raises(ProtocolError, match="1 frames announced, 0 sent"):
        Decoder(ClientMessage).decode(encode(Submit(req)))


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def saved(picture: Image.Image, name: str = "picture.png", **options: object) -> str:
        picture.save(tmp_path / name, **options)
        return str(tmp_path / name)

    return saved


def test_several_files_are_opened_in_their_order(save: Save) -> None:
    paths = [save(Image.new("RGB", (7, rows)), f"{rows}.png") for rows in (3, 1, 2)]
    params, pixels = open_pictures(SamplingParams(image_path=paths, last_image_path=paths[1]))
    assert params == SamplingParams()
    assert {name: len(each) for name, each in pixels.items()} == {
        "image": 3,
        "image_2": 1,
        "image_3": 2,
        "last_image": 1,
    }


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_a_picture_of_any_mode_is_opened_as_rgb(save: Save, mode: str) -> None:
    name = "picture.jpg" if mode == "CMYK" else "picture.png"
    path = save(Image.new("RGB", (7, 5), (200, 30, 90)).convert(mode), name)
    params, pixels = open_pictures(SamplingParams(prompt="a", image_path=path))
    assert params == SamplingParams(prompt="a")
    assert (pixels["image"].shape, pixels["image"].dtype) == ((5, 7, 3), np.uint8)


def test_a_picture_is_turned_upright(save: Save) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    path = save(Image.new("RGB", (7, 5)), "photo.jpg", exif=exif)
    _, pixels = open_pictures(SamplingParams(image_path=path))
    assert pixels["image"].shape == (7, 5, 3)


def test_a_mask_is_opened_as_grey(save: Save) -> None:
    path = save(Image.new("RGB", (7, 5), "white"))
    _, pixels = open_pictures(SamplingParams(image_path=path, mask_path=path))
    assert pixels["mask"].shape == (5, 7)
    assert pixels["mask"].min() == 255


def test_what_is_no_picture_is_refused_with_its_field(save: Save, tmp_path: Path) -> None:
    text, empty, cut = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    text.write_text("%!PS-Adobe-3.0 EPSF-3.0")
    empty.write_bytes(b"")
    whole = io.BytesIO()
    Image.effect_noise((50, 50), 90).save(whole, "png")
    cut.write_bytes(whole.getvalue()[:400])
    for path in (text, empty, cut, tmp_path, tmp_path / "none.png", "\0"):
        with pytest.raises(InvalidRequest) as refused:
            open_pictures(SamplingParams(mask_path=str(path)))
        assert refused.value.field == "mask_path"


def test_a_file_names_the_inputs_that_it_was_made_from(tmp_path: Path) -> None:
    (req,) = requests_of(SamplingParams(prompt="a", seed=1), ALL, BOTH)
    recipe = Recipe.of(req, None, "m")
    assert (recipe.params, recipe.pictures) == (req.params, ("image", "mask"))
    (tmp_path / "a.png").write_bytes(encode_image(np.zeros((8, 8, 3), np.uint8), "png", recipe))
    assert read_parameters(tmp_path / "a.png") == recipe
    older = {
        name: each for name, each in json.loads(recipe.to_json()).items() if name != "pictures"
    }
    assert msgspec.convert(older, Recipe).pictures == ()


def test_each_control_needs_a_picture_and_each_picture_a_control() -> None:
    steered = SamplingParams(control={"name": "canny"})
    picture = FrameHeader((30, 40, 3))
    controlled = msgspec.structs.replace(ALL, parameters=(*ALL.parameters, "control"))
    assert resolve(steered, controlled, {"control_1": picture}).control[0].name == "canny"
    for pictures in ({}, {"control_2": picture}):
        with pytest.raises(InvalidRequest, match="control='canny': needs an image"):
            resolve(steered, controlled, pictures)
    with pytest.raises(InvalidRequest, match="without an entry in control"):
        resolve(SamplingParams(), controlled, {"control_1": picture})
    with pytest.raises(InvalidRequest, match="must be at most 4"):
        resolve(SamplingParams(control=["canny=x"] * 5), controlled)


def test_a_control_for_a_model_that_takes_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not supported by"):
        resolve(SamplingParams(control={"name": "a"}), ALL, {"control_1": SEVERAL["image"]})
