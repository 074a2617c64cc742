"""The device that the tests marked gpu run on: CUDA, or what FLOWSR_GPU_TESTS_ON names, to see that they run at all."""

import os

import torch

DEVICE = os.environ.get("FLOWSR_GPU_TESTS_ON", "cuda")


def exactly():
    """A context in which convolutions are of full float32 precision, where a GPU would round inputs to TF32."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
