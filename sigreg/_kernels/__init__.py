"""The fused implementations: kernels that all meet one contract, and their table in `ops`."""
