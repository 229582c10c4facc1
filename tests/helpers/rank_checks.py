"""What each rank of a group checks; `python rank_checks.py RANK WORLD_SIZE STORE`.

Prints one JSON object: the name of each check -> null, or what went wrong on this rank; it stops at
the first failure. Run by test_distributed.
"""

import itertools
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from banded_vaes import banded_decoder, banded_vaes, decoded_in_bands, decoded_whole
from exchanged_bytes import check_bytes, meshes
from native import attend, evaluate, filled, parts_of
from rank_processes import say_and_leave
from tiled_vaes import decoded_in_tiles, picture_vae, video_vae
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from multimodal_gen.errors import GenerationFailed, InvalidRequest, OutOfMemory
from multimodal_gen.runtime.distributed.first_rank import Branches, make_sharing
from multimodal_gen.runtime.distributed.mesh import Mesh, init_process_group
from multimodal_gen.runtime.distributed.rows import deal, gather_rows
from multimodal_gen.runtime.distributed.sequence import make_sequence_parallel
from multimodal_gen.runtime.layers.attention import select_attention
from multimodal_gen.runtime.layers.joint_stream import BlockContext
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.managers.rank_device import agree_on_memory
from multimodal_gen.runtime.models.dits.flux.blocks import FluxSingleBlock
from multimodal_gen.runtime.models.dits.flux.config import FluxConfig
from multimodal_gen.runtime.models.dits.flux.model import FluxTransformer
from multimodal_gen.runtime.models.dits.flux2.config import Flux2Config
from multimodal_gen.runtime.models.dits.flux2.model import Flux2SingleBlock, Flux2Transformer
from multimodal_gen.runtime.models.dits.qwen_image.config import QwenImageConfig
from multimodal_gen.runtime.models.dits.qwen_image.model import QwenImageTransformer
from multimodal_gen.runtime.models.dits.stable_diffusion_3.config import SD3Config
from multimodal_gen.runtime.models.dits.stable_diffusion_3.model import SD3Transformer
from multimodal_gen.runtime.models.dits.wan.config import WanConfig
from multimodal_gen.runtime.models.dits.wan.model import WanTransformer
from multimodal_gen.runtime.models.dits.z_image.config import ZImageConfig
from multimodal_gen.runtime.models.dits.z_image.model import ZImageTransformer
from multimodal_gen.runtime.models.vaes.bands.banded_decoder import BandedDecoder
from multimodal_gen.runtime.models.vaes.pixels import to_uint8

attention = select_attention("sdpa")


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def memory_is_agreed_on_before_it_is_needed(mesh: Mesh, _: Mesh) -> None:
    device, too_much = torch.device("cpu"), 2**55
    held: list[int] = []

    def hold() -> None:
        held.append(1)
        if mesh.rank == 1 and len(held) == 3:
            raise torch.OutOfMemoryError("planted")

    agree_on_memory(2**20, device, hold)
    for needed in (too_much if mesh.rank == 1 else 2**20, 2**20):
        try:
            agree_on_memory(needed, device, hold)
        except OutOfMemory:
            continue
        raise AssertionError("a rank goes on without the memory that another lacks")
    assert len(held) == 3


def every_rank_has_what_the_first_makes(mesh: Mesh, _: Mesh) -> None:
    """Any type and shape, in any layout; a tensor of two branches stays one."""
    share = make_sharing(mesh, torch.device("cpu"))
    states, text = _random(3, 4).T, torch.tensor([[True, False]])
    made = {
        "positive": {"states": states, "mask": text, "nothing": torch.empty(0, 2)},
        "negative": {"states": states, "half": _random(2).bfloat16(), "scale": torch.tensor(7)},
    }
    calls: list[int] = []

    def make() -> Branches:
        calls.append(mesh.rank)
        return made

    received = share(make)
    assert calls == ([0] if mesh.rank == 0 else [])
    assert [*received] == [*made]
    for branch, named in made.items():
        assert [*received[branch]] == [*named]
        for name, tensor in named.items():
            assert received[branch][name].dtype == tensor.dtype
            assert torch.equal(received[branch][name], tensor), name
    assert received["positive"]["states"] is received["negative"]["states"]


def every_rank_has_the_error_of_the_first(mesh: Mesh, _: Mesh) -> None:
    share = make_sharing(mesh, torch.device("cpu"))
    refused = InvalidRequest("prompt", "x", "must be something else")
    for error, kind in ((refused, InvalidRequest), (KeyError("a key"), GenerationFailed)):

        def make(error: Exception = error) -> Branches:
            raise error

        with pytest.raises((kind, type(error))) as raised:
            share(make)
        assert raised.value is error if mesh.rank == 0 else raised.type is kind
        assert str(error) in str(raised.value)
    assert share(lambda: {"positive": {}}) == {"positive": {}}  # still in step


def a_rank_without_room_for_what_the_first_makes_leaves_nobody_waiting(mesh: Mesh, _: Mesh) -> None:
    share, last = make_sharing(mesh, torch.device("cpu")), mesh.rank == mesh.world_size - 1
    made = {"positive": {"states": _random(3, 4)}}
    full = mock.patch.object(torch, "empty", side_effect=MemoryError("planted"))
    raised = pytest.raises(MemoryError if last else OutOfMemory)
    with full if last else nullcontext(), raised:
        share(lambda: made)
    assert torch.equal(share(lambda: made)["positive"]["states"], _random(3, 4))  # still in step


def rows_are_gathered_whole(rows_mesh: Mesh, _: Mesh) -> None:
    for rows in (1, 2, 3, 4, 5, 9):  # fewer than the ranks, uneven, even
        whole = _random(rows, 3, 2)
        share = deal(rows, rows_mesh.cfg.size)[rows_mesh.cfg.rank]
        for dtype in (torch.float32, torch.bfloat16, torch.int64):
            local = whole.to(dtype)[share.start : share.stop]
            assert torch.equal(gather_rows(local, rows, rows_mesh), whole.to(dtype)), (rows, dtype)


def sequences_are_sharded_and_gathered(_: Mesh, mesh: Mesh) -> None:
    sequence = make_sequence_parallel(mesh, attention)
    for length in (1, 3, 8, 13):
        for dim in (0, 1, 2):
            shape = [2, 2, 2]
            shape[dim] = length
            whole = _random(*shape)
            local = sequence.shard(whole, dim)
            assert local.shape[dim] == len(deal(length, mesh.sequence.size)[mesh.sequence.rank])
            assert torch.equal(sequence.gather(local, length, dim), whole), (length, dim)


def shared_attention_equals_one_rank(_: Mesh, mesh: Mesh) -> None:
    _compare_attention(mesh, None)


def shared_attention_honours_lengths(_: Mesh, mesh: Mesh) -> None:
    _compare_attention(mesh, torch.tensor([9, 4]))


def shared_attention_with_lengths_indexes_nothing(_: Mesh, mesh: Mesh) -> None:
    """An index of all tokens is a list on the host and a copy to the device, in every attention."""
    sequence = make_sequence_parallel(mesh, attention)
    whole = _random(3, 2, 11, 4, 8)
    local = torch.cat([sequence.shard(part, 2) for part in whole.split([3, 8], dim=2)], dim=2)
    attend(sequence, [*local], (3, 8), torch.tensor([11, 4]))  # orders are made once
    with _Operations() as operations:
        attend(sequence, [*local], (3, 8), torch.tensor([11, 4]))
    assert operations.names
    assert not {*operations.names} & {
        "aten::index",
        "aten::index_select",
        "aten::sort",
        "aten::gather",
    }


class _Operations(TorchDispatchMode):
    """Collects the names of the operations that run, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.names.append(func.name().partition(".")[0])
        return func(*args, **(kwargs or {}))


def shared_attention_writes_queries_keys_and_values_once(_: Mesh, mesh: Mesh) -> None:
    """In the order in which they travel, and in the type of the values."""
    sequence = make_sequence_parallel(mesh, attention)
    for batch, heads in ((1, 4), (2, 4), (2, 3)):
        tokens = len(sequence.share(11))
        qk, v = _random(batch, tokens, 2, heads, 8), _random(batch, tokens, heads, 8).bfloat16()
        with _Written() as written:
            attending = sequence.attend(v, (11,))
            attending.start(qk)
            if mesh.ulysses.size == 1:
                attending.wait()
        if mesh.ulysses.size > 1:
            attending.wait()
        travels = 3 if mesh.ulysses.size > 1 else 2  # queries don't go around a ring
        queries = v.nbytes if mesh.ulysses.size == 1 else 0  # but change their type
        assert written.bytes == travels * v.nbytes + queries, (batch, heads)


class _Written(TorchDispatchMode):
    """Counts bytes that operations write before the first message to another rank."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self._left = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self._left |= func.name().startswith(("c10d::send", "c10d::recv"))
        result = func(*args, **(kwargs or {}))
        allocates = func.name().startswith(("aten::empty", "aten::new_empty"))
        if not self._left and func.namespace == "aten" and not func.is_view and not allocates:
            self.bytes += sum(x.nbytes for x in tree_leaves(result) if isinstance(x, torch.Tensor))
        return result


def the_mlp_of_a_single_block_is_computed_while_heads_travel(_: Mesh, mesh: Mesh) -> None:
    flux = FluxConfig(attention_head_dim=8, num_attention_heads=4, axes_dims_rope=(4, 2, 2))
    flux2 = Flux2Config(attention_head_dim=8, num_attention_heads=4, axes_dims_rope=(2, 2, 2, 2))
    x, modulation = _random(2, 5, 32), (torch.zeros(2, 1, 32),) * 3
    for block in (FluxSingleBlock(flux, parts_of(mesh)), Flux2SingleBlock(flux2, parts_of(mesh))):
        for parameter in block.parameters():
            nn.init.constant_(parameter, 0.1)
        with torch.no_grad(), _Operations() as operations:
            block(x, modulation, BlockContext(None, (5 * mesh.sequence.size,)))
        kinds = [re.findall("alltoall|mm$", name) for name in operations.names]
        qkv, v, qk, mlp, out, proj = (
            ["mm"],
            ["alltoall"],
            ["alltoall"],
            ["mm"],
            ["alltoall"],
            ["mm"],
        )
        assert [kind for kind in kinds if kind] == [qkv, v, qk, mlp, out, proj]


def _compare_attention(mesh: Mesh, lengths: torch.Tensor | None) -> None:
    sequence = make_sequence_parallel(mesh, attention)
    for heads in (1, 3, 4, 6):
        for streams in ((9,), (3, 8), (1, 9), (2, 1, 11)):
            whole = _random(3, 2, sum(streams), heads, 8)
            parts = whole.split_with_sizes(list(streams), dim=2)
            local = torch.cat([sequence.shard(part, 2) for part in parts], dim=2)
            out = attend(sequence, [*local], streams, lengths)
            expected = attention(*whole, lengths).split_with_sizes(list(streams), dim=1)
            mine = torch.cat([sequence.shard(part) for part in expected], dim=1)
            torch.testing.assert_close(out, mine, atol=1e-5, rtol=1e-5)


Shared = list[tuple[Mesh, nn.Module]]
"""Transformers that share their work, each on a mesh."""


def _geometries(heads: int) -> list[Mesh]:
    """The ways in which these ranks share an evaluation: all where heads are uneven, and by heads
    where some ranks have none."""
    size = dist.get_world_size()
    meshes = [_mesh(ulysses=size)]
    if heads in (1, 3):
        meshes.append(_mesh(tensor=size))
    if heads == 3:
        meshes.append(_mesh(ring=size))
    if heads == 3 and size == 4:
        products = (
            {"ulysses": 2, "tensor": 2},
            {"ring": 2, "ulysses": 2},
            {"ring": 2, "tensor": 2},
        )
        meshes += [_mesh(**way) for way in products]
    return meshes


@cache
def _mesh(**way: int) -> Mesh:
    return Mesh.create(dist.get_rank(), **way)


def _models(make: Callable[[Parts], nn.Module], heads: int) -> tuple[nn.Module, Shared]:
    """A transformer on one rank, and those that share its work, with the same weights."""
    alone = make(parts_of())
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(weight.shape, generator=generator) / weight.shape[-1] ** 0.5
        for name, weight in alone.state_dict().items()
    }
    alone.load_state_dict(weights)
    return alone, [(mesh, filled(make, mesh, weights)) for mesh in _geometries(heads)]


def flux_on_ranks_equals_flux_on_one(_: Mesh, __: Mesh) -> None:
    for heads in (1, 3, 4, 6):
        config = FluxConfig(
            in_channels=8,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=heads,
            joint_attention_dim=8,
            pooled_projection_dim=8,
            axes_dims_rope=(4, 2, 2),
        )
        models = _models(partial(FluxTransformer, config), heads)
        for text, *grids in ((5, (3, 3)), (1, (1, 3)), (8, (4, 4)), (3, (2, 3), (1, 1))):
            tokens, *picture = (_random(2, height * width, 8) for height, width in grids)
            inputs = {
                "hidden_states": tokens,
                "encoder_hidden_states": _random(2, text, 8),
                "pooled_projections": _random(2, 8),
                "timestep": torch.tensor([0.9, 0.2]),
                "picture": picture[0] if picture else None,
            }
            _compare(models, grids=tuple(grids), **inputs)


def sd3_on_ranks_equals_sd3_on_one(_: Mesh, __: Mesh) -> None:
    for heads in (1, 3, 4, 6):
        config = SD3Config(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=heads,
            joint_attention_dim=8,
            caption_projection_dim=8 * heads,
            pooled_projection_dim=8,
            pos_embed_max_size=5,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        )
        models = _models(partial(SD3Transformer, config), heads)
        for text, size in ((5, (6, 6)), (1, (2, 6)), (8, (8, 10))):
            inputs = {
                "latents": _random(2, 4, *size),
                "encoder_hidden_states": _random(2, text, 8),
                "pooled_projections": _random(2, 8),
            }
            _compare(models, timestep=torch.tensor([900.0, 200.0]), **inputs)


def wan_on_ranks_equals_wan_on_one(_: Mesh, __: Mesh) -> None:
    for heads in (1, 3, 4, 6):
        config = WanConfig(
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=heads,
            text_dim=8,
            freq_dim=8,
            ffn_dim=16,
            image_dim=8,
            added_kv_proj_dim=8 * heads,
        )
        models = _models(partial(WanTransformer, config), heads)
        for size in ((1, 2, 2), (3, 2, 6), (2, 4, 4)):
            inputs = {
                "hidden_states": _random(2, 4, *size),
                "encoder_hidden_states": _random(2, 512, 8),
                "encoder_hidden_states_image": _random(2, 3, 8),
            }
            for timesteps in ([[900.0], [200.0]], [[0.0, 900.0], [200.0, 200.0]]):
                _compare(models, timestep=torch.tensor(timesteps), **inputs)


def flux2_on_ranks_equals_flux2_on_one(_: Mesh, __: Mesh) -> None:
    for heads in (1, 3, 4, 6):
        config = Flux2Config(
            in_channels=8,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=heads,
            joint_attention_dim=8,
            axes_dims_rope=(2, 2, 2, 2),
        )
        models = _models(partial(Flux2Transformer, config), heads)
        for text, grids in ((5, ((3, 3),)), (1, ((1, 3), (1, 2))), (8, ((4, 4), (3, 5), (1, 1)))):
            tokens = [height * width for height, width in grids]
            _compare(
                models,
                hidden_states=_random(2, tokens[0], 8),
                encoder_hidden_states=_random(2, text, 8),
                timestep=torch.tensor([0.9, 0.2]),
                grids=grids,
                references=_random(2, sum(tokens[1:]), 8) if len(grids) > 1 else None,
            )


def z_image_on_ranks_equals_z_image_on_one(_: Mesh, __: Mesh) -> None:
    for heads in (1, 3, 4, 30):
        config = ZImageConfig(
            in_channels=4,
            dim=8 * heads,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=heads,
            cap_feat_dim=8,
            axes_dims=(4, 2, 2),
        )
        models = _models(partial(ZImageTransformer, config), heads)
        for text, size, lengths in ((5, (6, 6), None), (70, (2, 14), [70, 9]), (33, (12, 8), None)):
            _compare(
                models,
                latents=_random(2, 4, *size),
                encoder_hidden_states=_random(2, text, 8),
                timestep=torch.tensor([0.9, 0.2]),
                lengths=None if lengths is None else torch.tensor(lengths),
            )


def qwen_image_on_ranks_equals_qwen_image_on_one(_: Mesh, __: Mesh) -> None:
    for heads in (1, 3, 4, 6):
        config = QwenImageConfig(
            in_channels=8,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=heads,
            joint_attention_dim=8,
            axes_dims_rope=(4, 2, 2),
            zero_cond_t=heads == 3,
        )
        models = _models(partial(QwenImageTransformer, config), heads)
        for grids, lengths in (
            (((3, 3),), None),
            (((1, 3), (5, 1)), [9, 2]),
            (((4, 4), (1, 1), (2, 3)), [1, 9]),
        ):
            tokens = [height * width for height, width in grids]
            _compare(
                models,
                hidden_states=_random(2, tokens[0], 8),
                encoder_hidden_states=_random(2, 9, 8),
                timestep=torch.tensor([0.9, 0.2]),
                grids=grids,
                picture=_random(2, sum(tokens[1:]), 8) if len(grids) > 1 else None,
                lengths=None if lengths is None else torch.tensor(lengths),
            )


def _compare(models: tuple[nn.Module, Shared], **inputs: Any) -> None:
    alone, shared = models
    shapes = [list(each.shape) for each in inputs.values() if isinstance(each, torch.Tensor)]
    with torch.inference_mode():
        expected = evaluate(alone, **inputs)
        for mesh, each in shared:
            ours = evaluate(each, **inputs)
            far = (ours - expected).norm() / expected.norm()
            assert far < 1e-5, (alone, mesh, shapes)


def tiles_on_ranks_are_those_on_one(_: Mesh, mesh: Mesh) -> None:
    """Pictures of 12 tiles, and videos whose tiles are decoded in chunks."""
    for vae, latents, size in (picture_vae(), video_vae()):
        expected = decoded_in_tiles(vae, latents, size, Mesh())
        pixels = decoded_in_tiles(vae, latents, size, mesh)
        if mesh.rank == 0:
            assert torch.equal(torch.cat(pixels.frames), torch.cat(expected.frames))
        else:
            assert not pixels.frames
        assert pixels.failure is None
        chunks = vae.chunks(size[2])
        turns = -(-expected.units // (chunks * mesh.world_size))
        assert pixels.units == turns * chunks


def a_rank_that_fails_in_a_tile_leaves_nobody_waiting(_: Mesh, mesh: Mesh) -> None:
    """It reports its error, and rank 0 sees pixels that are not finite."""
    vae, latents, size = picture_vae()
    plain, failing = vae.decode_tile, mesh.world_size - 1

    def faulty(tile: torch.Tensor, *args: Any, **options: Any) -> Any:
        if mesh.rank == failing:
            raise MemoryError("planted")
        return plain(tile, *args, **options)

    with mock.patch.object(vae, "decode_tile", faulty):
        pixels = decoded_in_tiles(vae, latents, size, mesh)
    assert isinstance(pixels.failure, MemoryError) == (mesh.rank == failing)
    if mesh.rank == 0:
        assert not all(magnitude.isfinite() for magnitude in pixels.magnitudes)
    assert decoded_in_tiles(vae, latents, size, mesh).failure is None  # in step as before


def bands_on_ranks_are_the_whole_on_one(_: Mesh, mesh: Mesh) -> None:
    for wrapper, module, latents in banded_vaes():
        assert BandedDecoder.knows(module), wrapper
        decoded, pixels = decoded_in_bands(banded_decoder(wrapper, module, mesh), latents)
        assert decoded.failure is None
        if mesh.rank:
            assert not decoded.frames, wrapper
            continue
        expected = decoded_whole(wrapper(module), latents)
        far = (torch.cat(pixels) - expected).norm() / expected.norm()
        assert far < 1e-5, (wrapper, far)
        off = torch.cat(decoded.frames).int() - to_uint8(expected).int()
        assert off.abs().max() <= 1, wrapper


def a_rank_that_fails_in_a_band_leaves_nobody_waiting(_: Mesh, mesh: Mesh) -> None:
    """Wherever it fails; rank 0 sees pixels that are not finite, or fails itself."""
    for number, (wrapper, module, latents) in enumerate(banded_vaes()):
        places = ((mesh.world_size - 1, 0), (0, 3), (1, 7))
        failing, at = places[number % len(places)]
        decoder = banded_decoder(wrapper, module, mesh)
        exchange, calls = decoder.bands.beyond, itertools.count()

        def faulty(
            *rows: torch.Tensor, calls: Any = calls, at: int = at, plain: Any = exchange
        ) -> Any:
            if next(calls) == at:
                raise MemoryError("planted")
            return plain(*rows)

        if mesh.rank == failing:
            mock.patch.object(decoder.bands, "beyond", faulty).start()
        decoded, pixels = decoded_in_bands(decoder, latents)
        assert isinstance(decoded.failure, MemoryError) == (mesh.rank == failing), decoded.failure
        if mesh.rank == 0 and failing:
            assert not all(each.isfinite().all() for each in pixels)
        if mesh.rank == failing:
            assert not decoded.frames
        again, _ = decoded_in_bands(banded_decoder(wrapper, module, mesh), latents)
        assert again.failure is None  # in step as before


def all_axes_share_one_world(_: Mesh, __: Mesh) -> None:
    for axis in ("ulysses", "ring"):
        _share_rows_and_sequence(
            Mesh.create(dist.get_rank(), cfg=2, **{axis: dist.get_world_size() // 2})
        )


def _share_rows_and_sequence(mesh: Mesh) -> None:
    assert mesh.rank == mesh.cfg.rank * mesh.sequence.size + mesh.sequence.rank
    sequence = make_sequence_parallel(mesh, attention)
    whole = _random(3, 5, 2)
    share = deal(3, 2)[mesh.cfg.rank]
    mine = sequence.gather(sequence.shard(whole[share.start : share.stop]), 5)
    assert torch.equal(gather_rows(mine, 3, mesh), whole)


def bytes_exchanged_are_those_of_the_formulas(_: Mesh, __: Mesh) -> None:
    for on, mesh in meshes(dist.get_rank(), dist.get_world_size()):
        check_bytes(on, mesh)


CHECKS: list[Callable[[Mesh, Mesh], None]] = [
    memory_is_agreed_on_before_it_is_needed,
    every_rank_has_what_the_first_makes,
    every_rank_has_the_error_of_the_first,
    a_rank_without_room_for_what_the_first_makes_leaves_nobody_waiting,
    rows_are_gathered_whole,
    sequences_are_sharded_and_gathered,
    shared_attention_equals_one_rank,
    shared_attention_honours_lengths,
    shared_attention_with_lengths_indexes_nothing,
    shared_attention_writes_queries_keys_and_values_once,
    the_mlp_of_a_single_block_is_computed_while_heads_travel,
    flux_on_ranks_equals_flux_on_one,
    sd3_on_ranks_equals_sd3_on_one,
    wan_on_ranks_equals_wan_on_one,
    flux2_on_ranks_equals_flux2_on_one,
    z_image_on_ranks_equals_z_image_on_one,
    qwen_image_on_ranks_equals_qwen_image_on_one,
    tiles_on_ranks_are_those_on_one,
    a_rank_that_fails_in_a_tile_leaves_nobody_waiting,
    bands_on_ranks_are_the_whole_on_one,
    a_rank_that_fails_in_a_band_leaves_nobody_waiting,
    all_axes_share_one_world,
    bytes_exchanged_are_those_of_the_formulas,
]
ON_EACH_MESH = [check for check in CHECKS if check.__name__.startswith(("sequences_", "shared_"))]
"""Checks of a sequence that ranks share in any way."""


def main(rank: int, world_size: int, store: Path) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    kept = dist.FileStore(str(store), world_size)
    init_process_group(rank, world_size, kept, torch.device("cpu"), timedelta(seconds=120))
    rows_mesh = Mesh.create(rank, cfg=world_size)
    sequence_meshes = [Mesh.create(rank, **{axis: world_size}) for axis in ("ulysses", "ring")]
    if world_size == 4:
        sequence_meshes.append(Mesh.create(rank, ring=2, ulysses=2))
    results: dict[str, str | None] = {}
    for check in CHECKS:
        try:
            for mesh in sequence_meshes if check in ON_EACH_MESH else sequence_meshes[:1]:
                check(rows_mesh, mesh)
            results[check.__name__] = None
        except Exception:
            results[check.__name__] = traceback.format_exc()
            break  # the ranks are out of step; the others see this one leave
    say_and_leave(results)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
