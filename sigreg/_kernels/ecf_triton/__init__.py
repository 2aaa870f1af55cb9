"""The Triton kernels. No other file imports triton."""
