"""Normalized attention guidance against explicit loops, against the plain transformers, and in whole pipelines."""

import math

import diffusers
import numpy as np
import pytest
import torch

from tests.generators import made_flux, made_sd3
from widespectrum.errors import InputError
from widespectrum.generators import joint_attention, nag


def by_hand(positive, negative, *, scale, tau, blend):
    """One token and one channel at a time; also the tokens that were cut down."""
    result, cut = torch.empty_like(positive), []
    for batch, token in np.ndindex(*positive.shape[:2]):
        z = [
            scale * float(p) - (scale - 1) * float(n)
            for p, n in zip(positive[batch, token], negative[batch, token], strict=True)
        ]
        rho = sum(abs(each) for each in z) / sum(abs(float(each)) for each in positive[batch, token])
        if rho > tau:
            cut.append((batch, token))
            z = [each * tau / rho for each in z]
        for channel, each in enumerate(z):
            result[batch, token, channel] = blend * each + (1 - blend) * positive[batch, token, channel]
    return result, cut


def pair(*, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 5, 6, generator=noise) for _ in range(2)]


@pytest.mark.parametrize(
    ("scale", "tau", "blend", "cut"),
    [(4.0, 100.0, 0.4, "none"), (4.0, 5.0, 0.4, "some"), (15.0, 2.0, 1.0, "all"), (10.0, 0.5, 0.25, "all")],
)
def test_guidance_as_loops_compute_it(scale, tau, blend, cut):
    positive, negative = pair()
    expected, tokens = by_hand(positive, negative, scale=scale, tau=tau, blend=blend)
    assert {0: "none", 10: "all"}.get(len(tokens), "some") == cut
    guided = nag.guide(positive, negative, scale=scale, tau=tau, blend=blend)
    torch.testing.assert_close(guided, expected, rtol=1e-5, atol=1e-5)
    if blend == 1:
        growth = guided.abs().sum(-1) / positive.abs().sum(-1)
        torch.testing.assert_close(growth, torch.full_like(growth, tau))


def test_no_guidance_is_exactly_plain():
    positive, negative = pair()
    assert torch.equal(nag.guide(positive, negative, scale=1.0, tau=5.0, blend=0.4), positive)
    assert torch.equal(nag.guide(positive, negative, scale=15.0, tau=5.0, blend=0.0), positive)
    assert torch.equal(nag.guide(positive, positive.clone(), scale=15.0, tau=1.0, blend=0.4), positive)


def test_half_precision_is_that_of_the_result_alone():
    positive, negative = (each.to(torch.bfloat16) for each in pair())
    options = {"scale": 15.0, "tau": 3.0, "blend": 0.4}
    guided = nag.guide(positive, negative, **options)
    assert guided.dtype == torch.bfloat16
    assert torch.equal(guided, nag.guide(positive.float(), negative.float(), **options).to(torch.bfloat16))


def test_tokens_of_size_zero_stay_finite():
    positive, negative = pair()
    positive[0, 0], negative[0, 1], positive[0, 2], negative[0, 2] = 0, 0, 0, 0
    guided = nag.guide(positive, negative, scale=4.0, tau=5.0, blend=0.4)
    assert guided.isfinite().all()
    assert not guided[0, 0].any()
    assert not guided[0, 2].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((0.9, 5.0, 0.4), "scale must be a number of 1 "),
        ((math.inf, 5.0, 0.4), "scale must be a number of 1 "),
        ((4.0, 0.0, 0.4), "tau must be a number above 0"),
        ((4.0, math.nan, 0.4), "tau must be a number above 0"),
        ((4.0, 5.0, -0.1), "blend must be a number from 0 "),
        ((4.0, 5.0, 1.1), "blend must be a number from 0 "),
    ],
)
def test_options_out_of_range(options, message, pipeline):
    with pytest.raises(InputError, match=f"NAG: {message}"):
        nag.check(*options)
    with pytest.raises(InputError, match=message), nag.attending(pipeline, *options):
        pass


# ---- whole pipelines

PROMPTS = ["a barn", "a pier at night, out of focus", "dunes"]
NEGATIVES = ["bright", "sharp, clean and beautiful", "light"]
SETTINGS = {"width": 64, "height": 64, "num_inference_steps": 2, "guidance_scale": 0.0, "output_type": "np"}
WINDOW = 32


@pytest.fixture(scope="module", params=["flux", "sd3"])
def pipeline(request, tmp_path_factory):
    made = {"flux": made_flux, "sd3": made_sd3}[request.param]
    folder = made.checkpoint(tmp_path_factory.mktemp(request.param) / "pipeline")
    loaded = diffusers.DiffusionPipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def noises(rows):
    return [torch.Generator().manual_seed(row) for row in rows]


def draw(pipeline, rows, negatives=NEGATIVES, *, scale=10.0, tau=5.0, blend=0.4):
    chosen = [negatives[row] for row in rows]
    given = nag.arguments(pipeline, [PROMPTS[row] for row in rows], chosen, WINDOW)
    with nag.attending(pipeline, scale, tau, blend):
        return pipeline(**given, **SETTINGS, generator=noises(rows)).images


def plainly(pipeline, rows):
    texts = [PROMPTS[row] for row in rows]
    return pipeline(texts, **SETTINGS, max_sequence_length=WINDOW, generator=noises(rows)).images


def test_a_negative_changes_the_image_and_nothing_is_left_behind(pipeline):
    transformer = pipeline.transformer
    plain, processors = plainly(pipeline, [0]), transformer.attn_processors
    drawn = draw(pipeline, [0])
    assert np.abs(drawn - plain).max() > 0.01
    for other in ({"negatives": ["dark"]}, {"scale": 2.0}, {"tau": 1.1}, {"blend": 0.1}):
        assert np.abs(draw(pipeline, [0], **other) - drawn).max() > 0.001
    assert np.array_equal(drawn, draw(pipeline, [0]))
    assert np.array_equal(plain, plainly(pipeline, [0]))
    assert transformer.attn_processors == processors
    assert not transformer._forward_pre_hooks
    assert not transformer._forward_hooks


@pytest.mark.parametrize("options", [{"scale": 1.0}, {"blend": 0.0}, {"negatives": [""]}])
def test_no_guidance_is_the_plain_image(pipeline, options):
    np.testing.assert_allclose(draw(pipeline, [0], **options), plainly(pipeline, [0]), atol=1e-4)


def test_three_together_are_three_alone(pipeline):
    together = draw(pipeline, [0, 1, 2])
    for row in range(3):
        np.testing.assert_allclose(together[row], draw(pipeline, [row])[0], atol=1e-4)
    other = draw(pipeline, [0, 1, 2], [NEGATIVES[0], "another text of another length", NEGATIVES[2]])
    np.testing.assert_allclose(other[[0, 2]], together[[0, 2]], atol=1e-4)
    assert np.abs(other[1] - together[1]).max() > 0.001


def test_only_image_tokens_are_guided_and_both_copies_stay_the_same(pipeline, monkeypatch):
    """The tokens of a joint attention, seen beside a plain attention of the same query, key and value."""
    attend, seen = nag._Guidance.attend, []

    def watched(self, query, key, value):
        tokens = attend(self, query, key, value)
        plain = joint_attention.merge_heads(torch.nn.functional.scaled_dot_product_attention(query, key, value))
        seen.append((query, tokens, plain, self._text_tokens))
        return tokens

    monkeypatch.setattr(nag._Guidance, "attend", watched)
    draw(pipeline, [0, 1], scale=10.0, tau=2.0, blend=0.5)
    flux = joint_attention.order_of(pipeline.transformer) == "PNI"
    assert len(seen) == 2 * (4 if flux else 3)
    for query, tokens, plain, text in seen:
        assert text == (WINDOW if flux else WINDOW + 77)
        cut = text if flux else tokens.shape[1] - text
        of_text, of_image = (slice(cut), slice(cut, None)) if flux else (slice(cut, None), slice(cut))
        assert tokens.shape[0] == 4
        assert torch.equal(tokens[:, of_text], plain[:, of_text])
        torch.testing.assert_close(query[:2, :, of_image], query[2:, :, of_image], rtol=1e-4, atol=1e-4)
        assert torch.equal(tokens[:2, of_image], tokens[2:, of_image])
        expected, _ = by_hand(plain[:2, of_image], plain[2:, of_image], scale=10.0, tau=2.0, blend=0.5)
        torch.testing.assert_close(tokens[:2, of_image], expected, rtol=1e-4, atol=1e-4)


def test_the_transformer_is_restored_after_an_error(pipeline):
    before = pipeline.transformer.attn_processors
    with pytest.raises(ZeroDivisionError), nag.attending(pipeline, 4.0, 5.0, 0.4):
        raise ZeroDivisionError
    assert pipeline.transformer.attn_processors == before
    assert not pipeline.transformer._forward_pre_hooks
    assert not pipeline.transformer._forward_hooks


def test_hooks_of_offloading_run_as_well(pipeline):
    """What moves weights when a model is offloaded replaces the transformer's forward."""
    from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module

    batches, expected = [], draw(pipeline, [0])

    class Watch(ModelHook):
        def pre_forward(self, module, *args, **kwargs):
            batches.append(len(kwargs["hidden_states"]))
            return args, kwargs

    add_hook_to_module(pipeline.transformer, Watch())
    try:
        assert np.array_equal(draw(pipeline, [0]), expected)
        plainly(pipeline, [0])
    finally:
        remove_hook_from_module(pipeline.transformer)
    assert batches == [2, 2, 1, 1]


def test_the_transformer_may_answer_with_an_object(pipeline):
    inputs = nag.arguments(pipeline, PROMPTS[:1], NEGATIVES[:1], WINDOW)
    given = {"encoder_hidden_states": inputs["prompt_embeds"], "pooled_projections": inputs["pooled_prompt_embeds"]}
    if joint_attention.order_of(pipeline.transformer) == "PNI":
        given |= {"hidden_states": torch.zeros(1, 4, 16), "guidance": torch.zeros(1), "img_ids": torch.zeros(4, 3)}
        given["txt_ids"] = torch.zeros(inputs["prompt_embeds"].shape[1], 3)
    else:
        given["hidden_states"] = torch.zeros(1, 4, 4, 4)
    with nag.attending(pipeline, 4.0, 5.0, 0.4), torch.no_grad():
        assert pipeline.transformer(timestep=torch.tensor([0.5]), **given).sample.shape[0] == 1


def test_the_tokens_are_those_of_both_texts(pipeline):
    given = nag.arguments(pipeline, PROMPTS[:2], ["", NEGATIVES[1]], WINDOW)
    positive, pooled = joint_attention.encode(pipeline, PROMPTS[:2], WINDOW)
    negative, _ = joint_attention.encode(pipeline, [PROMPTS[0], NEGATIVES[1]], WINDOW)
    assert torch.equal(given["prompt_embeds"], torch.cat([positive, negative], dim=1))
    assert torch.equal(given["pooled_prompt_embeds"], pooled)


def test_a_negative_beyond_the_window_is_refused(pipeline):
    with pytest.raises(InputError, match=r"the negative prompt 'x x.*' has \d+ tokens, 8 can be read: shorten it"):
        nag.arguments(pipeline, ["a"], ["x " * 30], 8)
