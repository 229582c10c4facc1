"""Operations of which torch makes several kernels, as one: for devices that have Triton."""
