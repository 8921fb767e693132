"""Groups that compare one part of the model each: vae, vit, schedule, positions, resize."""

import torch

from staged.model.flow import time_grid
from staged.model.images import fit_size, from_pixels, resize
from staged.model.layout import Segment, SegmentKind, lay_out
from staged.model.patches import patchify
from staged.model.positions import (
    extrapolated_position_ids,
    interpolated_position_ids,
    sincos_table,
)
from staged.verify.comparison import Comparisons
from staged.verify.golden import Golden

__all__ = ["positions", "resizing", "schedule", "vae", "vit"]


@torch.no_grad()
def vae(golden: Golden, results: Comparisons) -> None:
    """Encoding to the scaled and shifted mean, and decoding it."""
    autoencoder = golden.loaded.autoencoder
    mean = golden.tensor("vae.latent_mean")
    latents = autoencoder.encode(golden.image("vae.image_u8")[None])
    results.add("vae", "latent_mean", latents, mean)
    images = autoencoder.decode(mean.to(golden.device))
    results.add("vae", "decoded", images, golden.tensor("vae.decoded"))


@torch.no_grad()
def vit(golden: Golden, results: Comparisons) -> None:
    """The tower over packed images of different sizes, and the connector with its positions."""
    model, config = golden.loaded.model, golden.loaded.config
    patch, side = config.vision.patch_size, config.vision.positions_per_side
    numbered = {int(match[1]): name for name, match in golden.named(r"vit\.image([0-9]+)_u8")}
    names = [numbered[number] for number in sorted(numbered)]
    grids = [golden.grid(name, patch) for name in names]
    patches = torch.cat([patchify(golden.image(name), patch) for name in names])
    results.add("vit", "tokens", patches, golden.tensor("vit.tokens"))
    position_ids = torch.cat([extrapolated_position_ids(*grid, side) for grid in grids])
    results.add("vit", "position_ids", position_ids, golden.tensor("vit.position_ids"))
    seqlens = torch.tensor([rows * columns for rows, columns in grids])
    results.add("vit", "seqlens", seqlens, golden.tensor("vit.seqlens"))
    features = model.vision(patches, position_ids.to(golden.device), seqlens.tolist())
    results.add("vit", "output", features, golden.tensor("vit.output"))

    segments = [Segment(kind=SegmentKind.VISION, grid=grid) for grid in grids]
    layout = lay_out([segments], golden.special).to(golden.device)
    connected = model.embed(layout, golden.inputs(patches))[len(layout.token_ids) :]
    results.add("vit", "connected", connected, golden.tensor("vit.connected"))


def schedule(golden: Golden, results: Comparisons) -> None:
    """Solver times; upstream counts their points, which are one more than the steps."""
    for name, match in golden.named(r"schedule\.n([0-9]+)_shift([0-9.]+)"):
        times = time_grid(int(match[1]) - 1, float(match[2]))
        results.add("schedule", name.removeprefix("schedule."), times, golden.tensor(name))


def positions(golden: Golden, results: Comparisons) -> None:
    """Flattened grid positions, and the frozen tables that a checkpoint may lack."""
    pattern = r"position\.(extrapolate|interpolate)_([0-9]+)x([0-9]+)_p([0-9]+)_m([0-9]+)"
    rules = {"extrapolate": extrapolated_position_ids, "interpolate": interpolated_position_ids}
    for name, match in golden.named(pattern):
        height, width, patch, side = map(int, match.groups()[1:])
        ids = rules[match[1]](height // patch, width // patch, side)
        results.add("positions", name.removeprefix("position."), ids, golden.tensor(name))
    model, config = golden.loaded.model, golden.loaded.config
    width = config.transformer.hidden_size
    for name, side, stored in (
        ("latent_positions", config.max_latent_size, model.latent_positions),
        ("vision_positions", config.vit_max_patches_per_side, model.vision_positions),
    ):
        results.add("positions", f"{name} table", sincos_table(width, side), stored.float())


def resizing(golden: Golden, results: Comparisons) -> None:
    """The table of sizes, and the pixels of one resized image."""
    for case in golden.description["resize"]:
        width, height = case["width"], case["height"]
        limits = {key: case[key] for key in ("max_size", "min_size", "stride")}
        found = torch.tensor(fit_size(width, height, **limits))
        expected = torch.tensor([case["new_width"], case["new_height"]])
        name = f"{width}x{height} max {limits['max_size']} min {limits['min_size']}"
        results.add("resize", name, found, expected)
    pixels = golden.tensor("resize.image_u8").numpy()
    height, width, _ = pixels.shape
    for name, match in golden.named(r"resize\.tensor_max([0-9]+)_min([0-9]+)_stride([0-9]+)"):
        largest, smallest, stride = map(int, match.groups())
        size = fit_size(width, height, max_size=largest, min_size=smallest, stride=stride)
        image = from_pixels(resize(pixels, *size))
        results.add("resize", name.removeprefix("resize."), image, golden.tensor(name))
