"""Encoding, sampling, decoding, and the order of latents in tokens."""

from dataclasses import replace

import pytest
import torch

from staged.model.autoencoder import Autoencoder, latents_from_tokens, tokens_from_latents
from staged.model.config import AutoencoderConfig

CONFIG = AutoencoderConfig(
    channels=32,
    multipliers=(1, 2),
    num_blocks=1,
    latent_channels=4,
    scaling_factor=0.5,
    shift_factor=0.25,
)


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(CONFIG).eval().requires_grad_(False)


def test_latents_are_the_shifted_and_scaled_mean(autoencoder: Autoencoder) -> None:
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    mean, log_variance = autoencoder.moments(images)
    assert mean.shape == log_variance.shape == (2, 4, 4, 6)
    torch.testing.assert_close(autoencoder.encode(images), (mean - 0.25) * 0.5)


def test_samples_follow_the_posterior_and_their_generator(autoencoder: Autoencoder) -> None:
    image = torch.rand(1, 3, 8, 8) * 2 - 1
    mean, log_variance = autoencoder.moments(image)
    draws = autoencoder.encode(image.expand(512, 3, 8, 8), torch.Generator().manual_seed(1))
    again = autoencoder.encode(image.expand(512, 3, 8, 8), torch.Generator().manual_seed(1))
    assert torch.equal(draws, again)
    unscaled = draws / 0.5 + 0.25
    deviation = (0.5 * log_variance).exp()[0]
    standardised = (unscaled - mean) / deviation
    assert standardised.mean().abs() < 0.05
    assert (standardised.std() - 1).abs() < 0.05


def test_decoding_undoes_scale_and_shift(autoencoder: Autoencoder) -> None:
    latents = torch.randn(1, 4, 4, 6)
    images = autoencoder.decode(latents)
    assert images.shape == (1, 3, 8, 12)
    torch.testing.assert_close(images, autoencoder.decoder(latents / 0.5 + 0.25))


def test_an_image_must_divide_into_latents(autoencoder: Autoencoder) -> None:
    with pytest.raises(ValueError, match="7 x 8 pixels is not a multiple of the autoencoder's 2"):
        autoencoder.encode(torch.zeros(1, 3, 8, 7))


def test_tokens_keep_the_reference_order() -> None:
    latents = torch.randn(4, 6, 8)
    blocks = latents.reshape(4, 3, 2, 4, 2)
    expected = torch.einsum("chpwq->hwpqc", blocks).reshape(-1, 2 * 2 * 4)
    tokens = tokens_from_latents(latents, 2)
    assert torch.equal(tokens, expected)
    assert torch.equal(latents_from_tokens(tokens, 3, 4, 2), latents)


def test_tokens_of_a_batch_are_those_of_its_members() -> None:
    latents = torch.randn(3, 4, 6, 8)
    tokens = tokens_from_latents(latents, 2)
    assert torch.equal(tokens[1], tokens_from_latents(latents[1], 2))
    assert torch.equal(latents_from_tokens(tokens, 3, 4, 2), latents)


def test_it_is_the_network_that_diffusers_has() -> None:
    """Numbers of the published weights are golden ones; here any weights will do."""
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    config = replace(CONFIG, multipliers=(1, 2, 2), num_blocks=2)
    torch.manual_seed(1)
    ours = Autoencoder(config).eval().requires_grad_(False)
    theirs = AutoencoderKL(
        block_out_channels=tuple(config.channels * m for m in config.multipliers),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=config.num_blocks,
        latent_channels=config.latent_channels,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    # It reads files of FLUX's names, which ours are.
    theirs.load_state_dict(convert_ldm_vae_checkpoint(ours.state_dict(), theirs.config))
    images, latents = torch.rand(2, 3, 16, 24) * 2 - 1, torch.randn(2, 4, 4, 6)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.encoder(images), theirs.encoder(images), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            ours.decoder(latents), theirs.decoder(latents), rtol=1e-4, atol=1e-5
        )
