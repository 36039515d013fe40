"""The noise from which images start."""

import hashlib

import pytest
import torch

from widespectrum.generators import load_generator
from widespectrum.generators.noise import noise, noise_seed
from widespectrum.prompts import load_prompt_set


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('[0,"coffee/clarity",0]', (0, "coffee/clarity")),
        ('[17,"Café \\"1\\"",3]', (17, 'Café "1"', 3)),
        ('[-1,"a",0]', (-1, "a")),
    ],
)
def test_it_is_the_beginning_of_a_digest_that_anyone_can_compute(text, arguments):
    first = hashlib.sha256(text.encode("utf-8")).digest()[:8]
    assert noise_seed(*arguments) == int.from_bytes(first, "big") // 2


def test_the_authored_pairs_have_different_noise_and_their_two_images_the_same():
    generator = load_generator("flux-dev")
    seeds = {}
    for prompt in load_prompt_set("authored").prompts:
        for seed in (0, 1):
            seeds.setdefault((prompt.pair_id, seed), set()).add(generator.noise_seed(prompt, seed))
    assert len(seeds) == 600
    assert all(len(both) == 1 for both in seeds.values())
    values = set.union(*seeds.values()) | {noise_seed(0, pair, 1) for pair, _ in seeds}
    assert len(values) == 900
    assert 0 <= min(values) < 2**61 < 2**62 < max(values) < 2**63


def test_the_noise_is_that_of_torch_on_the_cpu():
    before = torch.get_rng_state()
    made = noise(2**63 - 1)
    drawn = torch.randn(3, generator=made)
    assert made.device.type == "cpu"
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(2**63 - 1)
        assert torch.equal(torch.randn(3), drawn)
