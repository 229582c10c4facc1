"""One numerical solver a request, for every view of diffusion, on diffusers' scheduler classes."""
