"""Decodes and encodes a picture of 4096 x 4096 pixels on the device that only pretends.

Prints one JSON object: for each of both, the most bytes that were alive besides those before, and
what is stated; and how many tiles there were. Run by test_large_pictures.
"""

import json

import pretend_device


def main() -> dict[str, dict[str, int]]:
    import torch
    from pretend_device import PretendDevice
    from tiled_vaes import decoded_in_tiles, image_module

    from multimodal_gen.runtime.distributed.mesh import Mesh
    from multimodal_gen.runtime.models.vaes.image import ImageVAE

    torch.set_num_threads(1)
    with PretendDevice() as device, torch.no_grad():
        module = image_module(4, 4, 4, 4, sample_size=512, groups=2).to(device.device)
        vae = ImageVAE(ImageVAE.transform(module))
        vae.room = vae.decode_bytes(1024, 1024)
        latents = torch.zeros(1, 16, 512, 512, device=device.device)

        def peak(work: object) -> int:
            """Bytes besides those that are alive now."""
            before = device.memory.peak = device.memory.live
            assert callable(work)
            work()
            return device.memory.peak - before

        size = (4096, 4096, 1)
        decoded = peak(lambda: decoded_in_tiles(vae, latents, size, Mesh(), room=vae.room))
        pixels = torch.zeros(1, 3, 4096, 4096, device=device.device)
        encoded = peak(lambda: vae.encode(pixels))
        grid = vae.grid(*size)
        assert grid is not None
        return {
            "decode": {"alive": decoded, "stated": vae.peak_bytes(*size) + latents.nbytes},
            "encode": {
                "alive": encoded,
                "stated": vae.decode_bytes(512, 512) + 8 * latents.nbytes,
            },
            "tiles": {"count": len(grid), "whole": vae.decode_bytes(*size)},
        }


if __name__ == "__main__":
    pretend_device.install()
    print(json.dumps(main()))
