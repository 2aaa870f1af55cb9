"""The fused kernels. All meet one contract; `ops` holds their table."""
