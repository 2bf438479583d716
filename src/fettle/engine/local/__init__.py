"""The engine of this process: weights, gradients and samples, in torch."""
