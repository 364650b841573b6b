"""Callbacks: what a run writes into its folder and into TensorBoard. The task brings them (`configure_callbacks`)."""
