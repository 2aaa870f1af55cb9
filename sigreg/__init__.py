"""Is this batch an isotropic Gaussian? The SIGReg regularizer, its kernels and read-outs."""

__all__: list[str] = []
