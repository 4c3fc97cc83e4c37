"""What a network costs."""

from __future__ import annotations


def frame_flop(model) -> int:
    """Floating-point operations (a multiplication and an addition are two) of one frame."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    audio, face = torch.zeros(1, 1, 80, 16), torch.zeros(1, 6, model.img_size, model.img_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(audio, face)
    return counter.get_total_flops()
