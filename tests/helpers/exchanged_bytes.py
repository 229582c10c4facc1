"""Evaluations of tiny transformers whose exchanges are counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from native import evaluate, filled, parts_of
from torch import nn

from multimodal_gen.benchmarks.parallel.exchanges import ExchangeCounter
from multimodal_gen.configs.parallel import ParallelConfig
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.distributed.rows import deal, gather_rows
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.models.dits.flux.config import FluxConfig
from multimodal_gen.runtime.models.dits.flux.model import FluxTransformer
from multimodal_gen.runtime.models.dits.qwen_image.config import QwenImageConfig
from multimodal_gen.runtime.models.dits.qwen_image.model import QwenImageTransformer
from multimodal_gen.runtime.models.dits.wan.config import WanConfig
from multimodal_gen.runtime.models.dits.wan.model import WanTransformer
from multimodal_gen.scheduling.parallel.shape import Evaluation
from multimodal_gen.scheduling.parallel.traffic import traffic

_ROWS, _TEXT, _IMAGE, _CHANNELS = 4, 8, 24, 16
_JOINT = {"in_channels": _CHANNELS, "attention_head_dim": 16, "num_attention_heads": 4}
_JOINT |= {"joint_attention_dim": 8, "axes_dims_rope": (8, 4, 4)}
Case = tuple[Any, Callable[[Any, Parts], nn.Module], int, Mapping[str, Any]]
"""Config, model, tokens and inputs."""


def cases() -> dict[str, Case]:
    """FLUX, Qwen-Image and Wan, with heads and tokens that four ranks share evenly."""
    flux = FluxConfig(**_JOINT, num_layers=1, num_single_layers=2, pooled_projection_dim=8)
    qwen = QwenImageConfig(**_JOINT, num_layers=2, out_channels=4)
    wan = WanConfig(
        num_attention_heads=4,
        attention_head_dim=16,
        text_dim=8,
        freq_dim=8,
        ffn_dim=64,
        num_layers=2,
    )
    texts = torch.ones(_ROWS, _TEXT, 8)
    joint = {
        "hidden_states": torch.ones(_ROWS, _IMAGE, _CHANNELS),
        "encoder_hidden_states": texts,
        "timestep": torch.full((_ROWS,), 0.5),
        "grids": ((4, 6),),
    }
    pooled = {**joint, "pooled_projections": torch.ones(_ROWS, 8)}
    video = {
        "hidden_states": torch.ones(_ROWS, 16, 2, 4, 6),
        "encoder_hidden_states": texts,
        "timestep": torch.full((_ROWS, 1), 500.0),
    }
    return {
        "FLUX": (flux, FluxTransformer, _TEXT + _IMAGE, pooled),
        "Qwen-Image": (qwen, QwenImageTransformer, _TEXT + _IMAGE, joint),
        "Wan": (wan, WanTransformer, 12, video),
    }


def check_bytes(on: ParallelConfig, mesh: Mesh) -> None:
    """Compare what this rank exchanges in one evaluation with the formula, along each axis."""
    for name, (config, make, tokens, inputs) in cases().items():
        counted = _counted(partial(make, config), mesh, inputs)
        output = inputs["hidden_states"][0].numel()
        work = Evaluation(shape=config.shape, rows=_ROWS, tokens=tokens, output=output, itemsize=4)
        expected = traffic(work, on)
        assert counted.keys() == expected.keys(), (name, on)
        for axis, told in expected.items():
            found, where = counted[axis], (name, axis, counted[axis], told)
            assert abs(found.sent - told.sent) <= 0.05 * told.sent, where
            assert abs(found.received - told.sent) <= 0.05 * told.sent, where
            assert found.exchanges == told.exchanges, where


def _counted(
    make: Callable[[Parts], nn.Module], mesh: Mesh, inputs: Mapping[str, Any]
) -> dict[str, Any]:
    own = deal(_ROWS, mesh.cfg.size)[mesh.cfg.rank]
    rows = {
        name: value[own.start : own.stop] if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }
    with torch.device("meta"):
        whole = make(parts_of()).state_dict()
    weights = {name: torch.full(each.shape, 0.01) for name, each in whole.items()}
    model = filled(make, mesh, weights)
    with torch.inference_mode(), ExchangeCounter() as counter:
        gather_rows(evaluate(model, **rows), _ROWS, mesh)
    return {name: each for name, each in counter.on(mesh).items() if each.exchanges}


def products_of(ranks: int) -> list[ParallelConfig]:
    """All kinds of sharing, and products of them, for so many ranks."""
    kinds = [{axis: ranks} for axis in ("cfg", "ulysses", "ring", "tensor")]
    if ranks == 4:
        kinds += [{"cfg": 2, "ulysses": 2}, {"cfg": 2, "tensor": 2}, {"ulysses": 2, "tensor": 2}]
        kinds += [{"ring": 2, "ulysses": 2}]
    return [ParallelConfig(**kind) for kind in kinds]


def meshes(rank: int, ranks: int) -> list[tuple[ParallelConfig, Mesh]]:
    """Collective: the mesh of each product."""
    return [(on, Mesh.create(rank, **asdict(on))) for on in products_of(ranks)]
