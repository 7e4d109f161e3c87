"""Training steps on fake CUDA tensors: what they launch, and what that would cost. Modelled, never measured."""
