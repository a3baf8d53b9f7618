"""Training: step, loop, optimizer, checkpoints, logs."""
