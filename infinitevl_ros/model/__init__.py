"""The network as plain functions of (weights, inputs, state): no threads, no graphs, no I/O but loading."""
