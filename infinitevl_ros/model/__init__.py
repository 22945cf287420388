"""The network as plain functions of (weights, inputs, state). No threads, no graphs."""
