"""One way to call any denoiser of diffusers: rows in, rows out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class DiffusersDenoiser:
    """A UNet or transformer of diffusers, called with a batch of rows.

    `added` names the conditioning that the module takes inside `added_cond_kwargs`.
    """

    def __init__(self, module: Any, added: tuple[str, ...] = ()) -> None:
        self._module = module
        self._added = added
        self._dtype = module.dtype

    def __call__(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Mapping[str, Tensor],
        **options: Any,
    ) -> Tensor:
        """The prediction [R, ...] for latents [R, ...] at timesteps [R].

        `conditioning` and `options` are arguments of the module; `options` are for all rows alike.
        """
        arguments: dict[str, Any] = {**conditioning, **options}
        if self._added:
            arguments["added_cond_kwargs"] = {name: arguments.pop(name) for name in self._added}
        prediction: Tensor = self._module(
            latents.to(self._dtype), timestep=timesteps, return_dict=False, **arguments
        )[0]
        return prediction
