"""Operations on tensors for stereo and depth: each a plain PyTorch reference with a fused kernel beside it."""
