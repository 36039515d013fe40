"""Value sign flip against explicit loops, against the plain transformers, and in whole pipelines."""

import math

import diffusers
import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel

from tests.generators import made_flux, made_sd3
from widespectrum.errors import InputError
from widespectrum.generators import joint_attention, vsf

P, N, I = 3, 2, 4  # noqa: E741
SEES = {"P": "PI", "N": "N", "I": "PIF"}
"""Who sees whom; F is the flipped copy of N."""


def letters(order, negative=N):
    counts = {"P": P, "N": negative, "I": I}
    return "".join(name * counts[name] for name in order)


def heads(tokens, *, seed=0, batch=2):
    noise = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 2, tokens, 4, generator=noise) for _ in range(3)]


def by_hand(query, key, value, *, order, alpha, offset):
    """One query and one key at a time."""
    names = letters(order)
    flipped = [place for place, name in enumerate(names) if name == "N"]
    columns = [(place, names[place]) for place in range(len(names))] + [(place, "F") for place in flipped]
    result = torch.zeros_like(query)
    for batch, head, row in np.ndindex(*query.shape[:3]):
        weights, total = [], 0.0
        for place, name in columns:
            if name not in SEES[names[row]]:
                continue
            logit = sum(float(a * b) for a, b in zip(query[batch, head, row], key[batch, head, place], strict=True))
            weight = math.exp(logit / math.sqrt(query.shape[-1]) - (offset if name == "F" else 0))
            weights.append((weight * (-alpha if name == "F" else 1), place))
            total += weight
        for weight, place in weights:
            result[batch, head, row] += weight / total * value[batch, head, place]
    return result


def flip(query, key, value, *, order, alpha, offset, bias=None):
    start = letters(order).index("N")
    bias = vsf.mask(P, N, I, offset, order=order) if bias is None else bias
    return vsf.flipped_attention(query, key, value, bias, negative=slice(start, start + N), alpha=alpha)


@pytest.mark.parametrize("order", ["PNI", "IPN"])
@pytest.mark.parametrize(("alpha", "offset"), [(2.0, 0.0), (0.5, 1.5), (-1.0, 0.0)])
def test_attention_as_loops_compute_it(order, alpha, offset):
    tensors = heads(P + N + I)
    expected = by_hand(*tensors, order=order, alpha=alpha, offset=offset)
    torch.testing.assert_close(flip(*tensors, order=order, alpha=alpha, offset=offset), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("order", ["PNI", "IPN"])
def test_every_pair_of_query_and_key(order):
    names = letters(order)
    query, key, value = heads(len(names), batch=1)
    negative = slice(names.index("N"), names.index("N") + N)
    keys, joined = torch.cat([key, key[:, :, negative]], dim=2), torch.cat([value, -2 * value[:, :, negative]], dim=2)
    bias = vsf.mask(P, N, I, 0.5, order=order)
    plain = torch.nn.functional.scaled_dot_product_attention
    before = plain(query, keys, joined, attn_mask=bias)
    for place, name in enumerate(names + "F" * N):
        other_keys, other_values = keys.clone(), joined.clone()
        other_keys[:, :, place] *= 0.5
        other_values[:, :, place] += 10
        moved = plain(query, other_keys, other_values, attn_mask=bias)
        changed = (moved - before).abs().amax(dim=(0, 1, 3)) > 1e-6
        assert [bool(each) for each in changed] == [name in SEES[asking] for asking in names]
    assert bias.shape == (len(names), len(names) + N)
    assert set(bias[[at for at, name in enumerate(names) if name == "I"], -1].tolist()) == {-0.5}


@pytest.mark.parametrize("order", ["PNI", "IPN"])
@pytest.mark.parametrize("offset", [1e9, math.inf])
def test_a_great_offset_leaves_plain_attention_without_the_negative(order, offset):
    names = letters(order)
    query, key, value = heads(len(names))
    kept = [place for place, name in enumerate(names) if name != "N"]
    plain = torch.nn.functional.scaled_dot_product_attention(*(each[:, :, kept] for each in (query, key, value)))
    torch.testing.assert_close(flip(query, key, value, order=order, alpha=2.0, offset=offset)[:, :, kept], plain)


@pytest.mark.parametrize("order", ["PNI", "IPN"])
def test_alpha_of_minus_one_is_ordinary_attention_for_the_image(order):
    names = letters(order)
    tensors = heads(len(names))
    image = [place for place, name in enumerate(names) if name == "I"]
    plain = torch.nn.functional.scaled_dot_product_attention(*tensors)
    torch.testing.assert_close(flip(*tensors, order=order, alpha=-1.0, offset=0.0)[:, :, image], plain[:, :, image])


@pytest.mark.parametrize("order", ["PNI", "IPN"])
def test_padding_of_a_shorter_negative_is_seen_by_nobody(order):
    names = letters(order)
    start = names.index("N")
    tensors = heads(len(names))
    bias = vsf.mask(P, N, I, 0.5, order=order, real=[N, 1])
    mixed = flip(*tensors, order=order, alpha=2.0, offset=0.5, bias=bias)
    without = [place for place in range(len(names)) if place != start + 1]
    short = vsf.flipped_attention(
        *(each[1:, :, without] for each in tensors),
        vsf.mask(P, 1, I, 0.5, order=order),
        negative=slice(start, start + 1),
        alpha=2.0,
    )
    torch.testing.assert_close(mixed[:1], flip(*tensors, order=order, alpha=2.0, offset=0.5)[:1])
    torch.testing.assert_close(mixed[1:, :, without], short)
    assert mixed.isfinite().all()
    assert (
        flip(*tensors, order=order, alpha=2, offset=0, bias=vsf.mask(P, N, I, 0, order=order, real=[N, 0]))
        .isfinite()
        .all()
    )


# ---- whole transformers


def transformer(family, *, dual=(0,)):
    """Tiny, its weights so strong that every token shows."""
    torch.manual_seed(0)
    shape = {"attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 8, "pooled_projection_dim": 8}
    if family == "flux":
        made = FluxTransformer2DModel(
            in_channels=4, num_layers=2, num_single_layers=2, axes_dims_rope=(4, 6, 6), **shape
        )
    else:
        made = SD3Transformer2DModel(
            sample_size=4,
            in_channels=4,
            out_channels=4,
            num_layers=3,
            caption_projection_dim=32,
            pos_embed_max_size=8,
            dual_attention_layers=dual,
            qk_norm="rms_norm",
            **shape,
        )
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            if tensor.ndim > 1 and "pos_embed" not in name:
                tensor.mul_(2)
    return made.eval()


def run(model, text, *, text_ids=None, image=None):
    """One step for a batch of one; image: another seed of the noise."""
    noise = torch.Generator().manual_seed(7 if image is None else image)
    inputs = {"timestep": torch.tensor([0.5]), "pooled_projections": torch.randn(1, 8, generator=noise)}
    if isinstance(model, FluxTransformer2DModel):
        ids = torch.zeros(I, 3)
        ids[:, 1] = torch.arange(I)
        inputs |= {"txt_ids": torch.zeros(text.shape[1], 3) if text_ids is None else text_ids, "img_ids": ids}
        inputs["hidden_states"] = torch.randn(1, I, 4, generator=noise)
    else:
        inputs["hidden_states"] = torch.randn(1, 4, 4, 4, generator=noise)
    with torch.no_grad():
        return model(encoder_hidden_states=text, return_dict=False, **inputs)[0]


def text(tokens, seed=0):
    return torch.randn(1, tokens, 8, generator=torch.Generator().manual_seed(seed))


class Holder:
    """What `attending` needs of a pipeline."""

    def __init__(self, model):
        self.transformer = model


FAMILIES = ["flux", "sd3"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transformer_with_a_great_offset_knows_no_negative(family):
    model, both = transformer(family), text(P + N)
    plain = run(model, both[:, :P])
    with vsf.attending(Holder(model), P, N, 2.0, 1e9):
        torch.testing.assert_close(run(model, both), plain, rtol=1e-4, atol=1e-5)
    with vsf.attending(Holder(model), P, N, 2.0, 0.0):
        drawn = run(model, both)
        assert (drawn - plain).abs().max() > 1e-2
        assert (run(model, torch.cat([both[:, :P], text(N, seed=1)], dim=1)) - drawn).abs().max() > 1e-2
    with vsf.attending(Holder(model), P, N, 4.0, 0.0):
        assert (run(model, both) - drawn).abs().max() > 1e-2
    assert torch.equal(run(model, both[:, :P]), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_projections_and_streams_are_the_models_own(family):
    """With plain attention inside, the processor is diffusers' own; in the last block of SD3 too."""
    model, tokens = transformer(family), text(P)
    plain = run(model, tokens)
    order = joint_attention.order_of(model)
    calls = []

    def attend(*tensors):
        calls.append(tensors[0].shape)
        return joint_attention.merge_heads(torch.nn.functional.scaled_dot_product_attention(*tensors))

    with joint_attention.attending(model, attend):
        torch.testing.assert_close(run(model, tokens), plain)
    assert order == {"flux": "PNI", "sd3": "IPN"}[family]
    assert calls == [(1, 2, P + I, 16)] * {"flux": 4, "sd3": 3}[family]


def test_the_second_attention_of_sd3_stays_plain():
    model = transformer("sd3", dual=(0, 1))
    before = model.attn_processors
    with vsf.attending(Holder(model), P, N, 2.0, 0.0):
        inside = model.attn_processors
    second = {name for name in before if ".attn2." in name}
    assert len(second) == 2
    assert {name for name in before if inside[name] is before[name]} == second


def test_the_rotary_phases_of_both_copies_match(monkeypatch):
    model, both = transformer("flux"), text(P + N)
    ids = torch.zeros(P + N, 3)
    ids[:, 0] = torch.tensor([2.0, 5.0, 1.0, 9.0, 4.0])
    seen, attention = [], torch.nn.functional.scaled_dot_product_attention

    def watched(query, key, value, attn_mask):
        seen.append((key, value))
        return attention(query, key, value, attn_mask=attn_mask)

    with vsf.attending(Holder(model), P, N, 3.0, 0.0):
        unwatched = run(model, both, text_ids=ids)
        assert (run(model, both) - unwatched).abs().max() > 1e-3
        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
        run(model, both, text_ids=ids)
    assert len(seen) == 4
    for key, value in seen:
        assert key.shape[2] == P + N + I + N
        assert torch.equal(key[:, :, P : P + N], key[:, :, -N:])
        assert torch.equal(-3 * value[:, :, P : P + N], value[:, :, -N:])


def test_the_phases_are_those_of_the_plain_model():
    """With alpha -1 the image sees N at the positions of its ids; after one block it is the plain model's."""
    model, both = transformer("flux"), text(P + N)
    model.transformer_blocks, model.single_transformer_blocks = model.transformer_blocks[:1], torch.nn.ModuleList()
    ids = torch.arange(3.0 * (P + N)).reshape(P + N, 3)
    with joint_attention.attending(model, vsf.attend(P, [N], -1.0, 0.0, "PNI")):
        torch.testing.assert_close(
            run(model, both, text_ids=ids), (plain := run_plain(both, ids)), rtol=1e-4, atol=1e-5
        )
    assert (run_plain(both, ids.flip(0)) - plain).abs().max() > 1e-3


def run_plain(both, ids):
    model = transformer("flux")
    model.transformer_blocks, model.single_transformer_blocks = model.transformer_blocks[:1], torch.nn.ModuleList()
    return run(model, both, text_ids=ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_transformer_is_restored_after_an_error(family):
    model = transformer(family)
    before = model.attn_processors
    with pytest.raises(ZeroDivisionError), vsf.attending(Holder(model), P, N, 2.0, 0.0):
        raise ZeroDivisionError
    assert model.attn_processors == before


@pytest.mark.parametrize(
    ("alpha", "offset", "message"),
    [
        (0.0, 0.0, "alpha"),
        (-1.0, 0.0, "alpha"),
        (math.nan, 0.0, "alpha"),
        (2.0, -0.1, "offset"),
        (2.0, math.nan, "offset"),
    ],
)
def test_options_out_of_range(alpha, offset, message):
    with pytest.raises(InputError, match=f"VSF: {message} must be a number"):
        vsf.check(alpha, offset)
    model = transformer("flux")
    with pytest.raises(InputError, match=message), vsf.attending(Holder(model), P, N, alpha, offset):
        pass


def test_other_transformers_are_refused():
    with pytest.raises(InputError, match=r"Flux and SD3; got Linear"):
        joint_attention.order_of(torch.nn.Linear(1, 1))


# ---- whole pipelines

PROMPTS = ["a barn", "a pier at night, out of focus", "dunes"]
NEGATIVES = ["bright", "sharp, clean and beautiful", "light"]
WINDOWS = {"flux": 64, "sd3": 32}


@pytest.fixture(scope="module", params=FAMILIES)
def pipeline(request, tmp_path_factory):
    made = {"flux": made_flux, "sd3": made_sd3}[request.param]
    folder = made.checkpoint(tmp_path_factory.mktemp(request.param) / "pipeline")
    loaded = diffusers.DiffusionPipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def window_of(pipeline):
    return WINDOWS["flux" if joint_attention.order_of(pipeline.transformer) == "PNI" else "sd3"]


def noises(rows):
    return [torch.Generator().manual_seed(row) for row in rows]


SETTINGS = {"width": 64, "height": 64, "num_inference_steps": 2, "guidance_scale": 0.0, "output_type": "np"}


def draw(pipeline, rows, negatives=NEGATIVES, *, alpha=2.0, offset=0.0):
    chosen = [negatives[row] for row in rows]
    given = vsf.arguments(pipeline, [PROMPTS[row] for row in rows], chosen, window_of(pipeline))
    counts = vsf.negative_tokens(pipeline, chosen)
    positive = given["prompt_embeds"].shape[1] - max(counts)
    with vsf.attending(pipeline, positive, counts, alpha, offset):
        return pipeline(**given, **SETTINGS, generator=noises(rows)).images


def plainly(pipeline, rows):
    texts = [PROMPTS[row] for row in rows]
    return pipeline(texts, **SETTINGS, max_sequence_length=window_of(pipeline), generator=noises(rows)).images


def test_a_negative_changes_the_image_and_nothing_is_left_behind(pipeline):
    plain, drawn = plainly(pipeline, [0]), draw(pipeline, [0])
    assert np.abs(drawn - plain).max() > 0.01
    assert np.abs(drawn - draw(pipeline, [0], ["dark"] * 3)).max() > 0.001
    assert np.array_equal(drawn, draw(pipeline, [0]))
    assert np.array_equal(plain, plainly(pipeline, [0]))
    np.testing.assert_allclose(draw(pipeline, [0], offset=1e9), plain, atol=1e-4)


def test_three_together_are_three_alone(pipeline):
    together = draw(pipeline, [0, 1, 2])
    for row in range(3):
        np.testing.assert_allclose(together[row], draw(pipeline, [row])[0], atol=1e-4)
    other = draw(pipeline, [0, 1, 2], [NEGATIVES[0], "another text of another length altogether", NEGATIVES[2]])
    np.testing.assert_allclose(other[[0, 2]], together[[0, 2]], atol=1e-4)
    assert np.abs(other[1] - together[1]).max() > 0.001


def test_an_empty_negative_is_none(pipeline):
    mixed = draw(pipeline, [0, 1], ["", NEGATIVES[1]])
    np.testing.assert_allclose(mixed[0], plainly(pipeline, [0])[0], atol=1e-4)
    np.testing.assert_allclose(draw(pipeline, [0], [""]), plainly(pipeline, [0]), atol=1e-4)
    assert np.abs(mixed[1] - plainly(pipeline, [1])[0]).max() > 0.01


def test_the_tokens_are_the_prompts_and_the_negatives_own(pipeline):
    window = window_of(pipeline)
    given = vsf.arguments(pipeline, PROMPTS[:2], NEGATIVES[:2], window)
    counts = vsf.negative_tokens(pipeline, [*NEGATIVES[:2], ""])
    positive, pooled = joint_attention.encode(pipeline, PROMPTS[:2], window)
    start = positive.shape[1]
    tokens = given["prompt_embeds"]
    assert counts[0] < counts[1]
    assert counts[2] == 0
    assert tokens.shape[1] == start + counts[1]
    assert torch.equal(tokens[:, :start], positive)
    assert torch.equal(given["pooled_prompt_embeds"], pooled)
    assert not tokens[0, start + counts[0] :].any()
    # Without padding, T5 reads the text alone.
    flux = joint_attention.order_of(pipeline.transformer) == "PNI"
    tokenizer, encoder = ("tokenizer_2", "text_encoder_2") if flux else ("tokenizer_3", "text_encoder_3")
    ids = getattr(pipeline, tokenizer)(NEGATIVES[0], return_tensors="pt").input_ids
    with torch.no_grad():
        alone = getattr(pipeline, encoder)(ids)[0][0]
    torch.testing.assert_close(tokens[0, start : start + counts[0]][-len(alone) :], alone)
    assert counts[0] - len(alone) == (0 if flux else len(pipeline.tokenizer(NEGATIVES[0]).input_ids))


def test_a_negative_beyond_the_window_is_refused(pipeline):
    with pytest.raises(InputError, match=r"the negative prompt 'x x.*' has \d+ tokens, 8 can be read: shorten it"):
        vsf.arguments(pipeline, ["a"], ["x " * 30], 8)
