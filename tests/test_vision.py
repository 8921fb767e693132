"""The vision tower against SigLIP itself, and packs against single images."""

import pytest
import torch
from transformers import SiglipVisionConfig, SiglipVisionModel

from staged.model.config import VisionConfig
from staged.model.keys import to_upstream_key
from staged.model.patches import patchify, unpatchify
from staged.model.positions import extrapolated_position_ids
from staged.model.vision import VisionTower

CONFIG = VisionConfig(
    hidden_size=24,
    intermediate_size=40,
    num_layers=2,
    num_heads=3,
    patch_size=4,
    positions_per_side=5,
)


def make_tower() -> VisionTower:
    tower = VisionTower(CONFIG)
    tower.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in tower.parameters():  # biases and norms must matter too
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return tower


def run(tower: VisionTower, *images: torch.Tensor) -> torch.Tensor:
    grids = [(image.shape[1] // 4, image.shape[2] // 4) for image in images]
    return tower(
        torch.cat([patchify(image, 4) for image in images]),
        torch.cat([extrapolated_position_ids(*grid, 5) for grid in grids]),
        [rows * columns for rows, columns in grids],
    )


def test_tower_equals_siglip() -> None:
    tower = make_tower()
    reference = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=3,
            image_size=20,
            patch_size=4,
            vision_use_head=False,
        )
    )
    ours = {
        to_upstream_key(f"vision.{name}").removeprefix("vit_model.vision_model."): value
        for name, value in tower.state_dict().items()
    }
    kernel = ours["embeddings.patch_embedding.weight"].reshape(24, 4, 4, 3)
    ours["embeddings.patch_embedding.weight"] = kernel.permute(0, 3, 1, 2)
    target = {name.removeprefix("vision_model."): name for name in reference.state_dict()}
    loaded = reference.load_state_dict({target[name]: value for name, value in ours.items()})
    assert not loaded.missing_keys
    image = torch.randn(3, 20, 20)
    with torch.no_grad():
        expected = reference(image[None]).last_hidden_state[0]
        torch.testing.assert_close(run(tower, image), expected, rtol=1e-5, atol=1e-5)


def test_images_in_a_pack_do_not_see_one_another() -> None:
    tower = make_tower()
    sizes = [(8, 12), (4, 4), (12, 8), (20, 20), (4, 4), (8, 12)]
    images = [torch.randn(3, *size) for size in sizes]
    with torch.no_grad():
        alone = torch.cat([run(tower, image) for image in images])
        torch.testing.assert_close(run(tower, *images), alone, rtol=1e-5, atol=1e-5)


def test_a_pack_without_images_still_reaches_every_parameter() -> None:
    tower = make_tower()
    empty = torch.zeros(0, CONFIG.patch_dim)
    tower(empty, torch.zeros(0, dtype=torch.int64), []).sum().backward()
    assert all(parameter.grad is not None for parameter in tower.parameters())


def test_lengths_must_cover_the_pack() -> None:
    with pytest.raises(ValueError, match="sum to 3, not 4"):
        make_tower()(torch.zeros(4, CONFIG.patch_dim), torch.arange(4), [1, 2])


def test_patches_flatten_as_row_column_channel() -> None:
    image = torch.arange(3 * 4 * 6).reshape(3, 4, 6)
    patches = patchify(image, 2)
    assert patches.shape == (6, 12)
    second_row_first_patch = patches[3].reshape(2, 2, 3)
    assert torch.equal(second_row_first_patch, image[:, 2:4, 0:2].permute(1, 2, 0))
    assert torch.equal(unpatchify(patches, 2, 3, 2), image)


def test_an_image_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="6 x 5"):
        patchify(torch.zeros(3, 5, 6), 2)
    with pytest.raises(ValueError, match="grid of 2 x 2"):
        unpatchify(torch.zeros(3, 12), 2, 2, 2)


def test_a_grid_larger_than_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="6 x 2 patches does not fit the 5 x 5"):
        extrapolated_position_ids(6, 2, 5)
