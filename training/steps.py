"""One update of each training, as its script makes it and `--check` tries it, and the generators'
validation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hparams import HParams

# torch and what needs it are imported inside the functions, so that --help answers at once


def expert_step(batch: dict, model, optimizer, hp: HParams | None = None, precision=None) -> dict:
    """One update. Returns the scalars loss, accuracy and grad_norm; contrastive (hp.syncnet_loss)
    also nce and bce.
    """
    from models.syncnet import contrastive_loss, cosine_loss, sync_accuracy
    from training.precision import Precision

    hp, precision = hp or HParams(), precision or Precision()
    model.train()
    with precision.no_sync(model):
        with precision.autocast():
            audio, face = model(batch["mel"], batch["x"])  # (B, 512) each
        if hp.syncnet_loss == "contrastive":
            scalars = contrastive_loss(
                *(audio, face, batch["group"], hp.contrastive_temperature, hp.contrastive_bce),
                start=batch["start"],
            )
        else:
            pairs = audio, face, batch["y"]
            scalars = {"loss": cosine_loss(*pairs), "accuracy": sync_accuracy(*pairs)}
        precision.backward(scalars["loss"])
    return scalars | precision.update(optimizer, model)


def generator_step(
    batch: dict, model, expert, optimizer, syncnet_wt: float, precision=None, mask_loss=None,
    mouth_wt: float = 0.0, disc=None, disc_wt: float = 0.0,
) -> tuple[dict, object]:  # fmt: skip
    """One update. Returns scalars l1, sync, total, l1_mouth, grad_norm, with mask_loss also mask,
    with a discriminator perceptual, and the frames (B, 3, T, H, W).
    """
    from torch.nn.functional import l1_loss

    from models.syncnet import generator_sync_loss
    from models.wav2lip import mouth_l1
    from training.precision import Precision

    precision = precision or Precision()
    model.train()
    with precision.no_sync(model):
        with precision.autocast():
            generated, masked = generate(batch, model, mask_loss)
            sync = generator_sync_loss(expert, batch["mel"], generated, syncnet_wt)
            judged = {"perceptual": disc.perceptual_forward(generated)} if disc else {}
        generated = precision.full(generated)
        l1, l1_mouth = l1_loss(generated, batch["y"]), mouth_l1(generated, batch["y"])
        total = syncnet_wt * sync + sum(disc_wt * loss for loss in judged.values())
        total = total + (1 - syncnet_wt - disc_wt) * l1 + sum(masked.values()) + mouth_wt * l1_mouth
        precision.backward(total)
    scalars = {"l1": l1, "sync": sync, "total": total, "l1_mouth": l1_mouth} | judged
    return scalars | masked | precision.update(optimizer, model), generated


def validate_generator(
    model, expert, batches, device, precision
) -> tuple[dict[str, float], tuple | None]:
    """Mean l1, l1_mouth and sync over the fixed validation windows of all processes, and this one's
    first batch with its frames, for the sample grid.
    """
    import torch
    from torch.nn.functional import l1_loss

    from models.syncnet import get_sync_loss
    from models.wav2lip import mouth_l1
    from training import distributed
    from training.setup import to_device

    model.eval()
    sums, first = dict.fromkeys(("l1", "l1_mouth", "sync", "count"), 0.0), None
    with torch.no_grad():
        for batch in batches:
            batch = to_device(batch, device)
            with precision.autocast():
                generated = model(batch["indiv_mels"], batch["x"])
                sync = get_sync_loss(expert, batch["mel"], generated)
            generated = precision.full(generated)
            first = first or (batch, generated)
            l1, mouth = l1_loss(generated, batch["y"]), mouth_l1(generated, batch["y"])
            for name, value in zip(sums, (l1, mouth, sync, 1), strict=True):
                sums[name] += float(value) * len(generated)
    sums = distributed.sum_of(sums)
    count = sums.pop("count")
    return {name: total / count for name, total in sums.items()}, first


def generate(batch: dict, model, mask_loss: Callable | None) -> tuple[object, dict]:
    """The frames (B, 3, T, H, W), and of a model with a mask {"mask": its loss}, else {}."""
    if mask_loss is None:
        return model(batch["indiv_mels"], batch["x"]), {}
    frames, mask = model(batch["indiv_mels"], batch["x"], masks=True)
    return frames, {"mask": mask_loss(mask)}


def create_mask_loss(hp: HParams) -> Callable | None:
    """The loss of the masks of hp.model; None where it has none."""
    if hp.model != "crossattn":
        return None
    from models.face_compositor import mask_loss

    return partial(mask_loss, mean_wt=hp.mask_wt, smooth_wt=hp.mask_smooth_wt)


def quality_step(
    batch: dict, model, disc, expert, optimizer, disc_optimizer, syncnet_wt: float, disc_wt: float,
    precision=None, called_disc=None, mask_loss=None, mouth_wt: float = 0.0,
) -> tuple[dict, object]:  # fmt: skip
    """One update of both networks. Returns generator_step's scalars with disc_real and disc_fake,
    and the generated frames (B, 3, T, H, W).

    called_disc: the discriminator as its own update calls it (speed_up), by default `disc`.
    """
    from models.wav2lip import adversarial_loss
    from training.precision import Precision

    precision, called_disc = precision or Precision(), called_disc or disc
    disc.train()

    # Generator
    disc.requires_grad_(False)
    scalars, generated = generator_step(
        batch, model, expert, optimizer, syncnet_wt, precision, mask_loss, mouth_wt, disc, disc_wt
    )

    # Discriminator
    disc.requires_grad_(True)
    with precision.no_sync(called_disc):
        with precision.autocast():
            disc_real = adversarial_loss(called_disc(batch["y"], logits=True), 1.0)
        precision.backward(disc_real)
        with precision.autocast():
            disc_fake = adversarial_loss(called_disc(generated.detach(), logits=True), 0.0)
        precision.backward(disc_fake)
    precision.update(disc_optimizer, disc)
    return {**scalars, "disc_real": disc_real, "disc_fake": disc_fake}, generated
