"""The network: its Keras definition, and its fused execution as a torch module."""
