"""Cases worked by hand; the names of `result` are the ones to compare, `form` is the configuration."""

import numpy as np

DARK, LIGHT, PALE = (np.full((384, 384, 3), gray, dtype=np.uint8) for gray in (51, 102, 204))

test_cases = [
    {
        # Q = -1.5, -2 and X = 1.5, 1: the second image pair is tied under the wide-spectrum prompt
        "inputs": {"r_io_po": [4, 5], "r_io_pa": [3, 5], "r_ia_po": [1, 2], "r_ia_pa": [4, 3]},
        "keywords": {},
        "result": {
            "image_prior": -1.75,
            "prompt_match": 1.25,
            "prior_over_match": 1.4,
            "accuracy_under_original": 1.0,
            "accuracy_under_wide_spectrum": 0.5,
            "both_ways_accuracy": 0.5,
        },
    },
    {
        # blind to the prompt: no match, never right both ways
        "inputs": {"r_io_po": [3, 1], "r_io_pa": [3, 1], "r_ia_po": [2, 5], "r_ia_pa": [2, 5]},
        "keywords": {},
        "result": {"image_prior": 1.5, "prompt_match": 0.0, "both_ways_accuracy": 0.0},
    },
    {
        # decisions 1, 0, 0 against verdicts 1, 1, 0; the tie is left out
        "inputs": {"r_io_po": [0, 0, 0, 0], "r_io_pa": [0, 2, 1, 0], "r_ia_po": [0, 0, 0, 0], "r_ia_pa": [3, 1, 0, 1]},
        "keywords": {"verdict": [1, 1, 0, 0.5]},
        "result": {"accuracy": 2 / 3, "f1": 2 / 3, "auroc": 0.75, "balanced_accuracy": 0.75, "mcc": 0.5, "n_tie": 1},
    },
    {
        # the first model is right both ways in all three pairs, the second in none; McNemar: 2 · (1/2)³
        "form": "comparison",
        "inputs": {
            **{"r_io_po": [4, 5, 6], "r_io_pa": [3, 3, 5], "r_ia_po": [1, 2, 2], "r_ia_pa": [4, 4, 6]},
            **{"r_io_po_rival": [4, 5, 6], "r_io_pa_rival": [4, 5, 6]},
            **{"r_ia_po_rival": [1, 2, 2], "r_ia_pa_rival": [1, 2, 2]},
        },
        "keywords": {},
        "result": {
            "both_ways_accuracy": 1.0,
            "both_ways_accuracy_rival": 0.0,
            "both_ways_accuracy_difference": 1.0,
            "both_ways_accuracy_mcnemar_p": 0.25,
        },
    },
    {
        # slopes 1/2 and 1/4 where the effect is asked for, −1/2 and −3/4 where it is not
        "form": "dose_response",
        "inputs": {
            "reward": [1, 2, 3, 5, 4, 3, 1, 2, 2, 5, 5, 2],
            "strength": [0, 2, 4] * 4,
            "requested": [1, 1, 1, 0, 0, 0] * 2,
        },
        "keywords": {"series": ["bus"] * 6 + ["cat"] * 6},
        "result": {
            "slope_requested": 0.375,
            "slope_unrequested": -0.625,
            "slope_difference": 1.0,
            "respects_request_rate": 1.0,
            "n_pairs": 2,
        },
    },
    {
        # gaps -4, 1, 0, 2: two right of four, the tie is wrong
        "form": "emotion",
        "inputs": {"r_io_pa": [9, 8, 7, 6], "r_ia_pa": [5, 9, 7, 8]},
        "keywords": {"emotion": ["sad", "sad", "angry", "angry"]},
        "result": {"accuracy": 0.5, "mean_gap": -0.25, "n_tie": 1, "binomial_p": 1.0},
    },
    {
        # happy 0.75 in both templates, sad 0.25 and 0.5
        "form": "generated_emotion",
        "inputs": {"match": [0.25, 0.5, 0.75, 0.75]},
        "keywords": {"emotion": ["sad", "sad", "happy", "happy"], "prompt_id": ["a", "b", "a", "b"]},
        "result": {"match": 0.375, "match_minus_control": -0.375},
    },
    {
        # differences 2, 0, 3, 1: three of four rise, and all three that are not 0 do: p = (1/2)³
        "form": "image_to_image",
        "inputs": {"r_input_po": [1, 2, 3, 4], "r_output_po": [3, 2, 6, 5]},
        "keywords": {
            "content_input": [80, 90, 70, 80],
            "content_output": [60, 50, 70, 60],
            "j_input": [[1.0] * 11] * 4,
            "j_output": [[1.5] * 11] * 4,
        },
        "result": {
            "delta_reward": 1.5,
            "reward_after": 4.0,
            "polished_rate": 0.75,
            "tie_rate": 0.25,
            "delta_j": 5.5,
            "content_preservation": 0.75,
            "wilcoxon_p": 0.125,
            "wilcoxon_p_two_sided": 0.25,
        },
    },
    {
        # brightness 0.2, 0.4 becomes 0.8, 0.4: a mean shift of 0.3, over a standard deviation of 0.2/√2
        "form": "look",
        "inputs": {"photograph": [DARK, LIGHT], "generated": [PALE, LIGHT]},
        "keywords": {},
        "result": {
            "brightness_shift": 0.3,
            "brightness_shift_standardised": 1.5 * 2**0.5,
            "brightness_p": 1.0,
            "saturation_shift": 0.0,
        },
    },
    {
        # a mean of 6 between 2 and 10, with one entry above it
        "form": "place",
        "inputs": {"reward": [5, 7]},
        "keywords": {"leaderboard": {"A": 2, "B": 6, "C": 10}},
        "result": {"mean_reward": 6.0, "relative_place": 0.5, "rank": 2, "n_places": 4},
    },
    {
        # gaps 5, 3, -2 under the photograph's caption; 6, 4, 2 under the clean one
        "form": "real_images",
        "inputs": {"r_io_pa": [9, 8, 6], "r_ia_pa": [4, 5, 8]},
        "keywords": {"r_io_po": [9, 9, 8], "r_ia_po": [3, 5, 6]},
        "result": {"gap": 2.0, "gap_under_clean_caption": 4.0, "gap_change": -2.0, "beaten_rate": 2 / 3},
    },
    {
        # critical prompts: gaps 3, 1, 2, all preferred; neutral ones: 1, -1, one of two
        "form": "social_critique",
        "inputs": {"r_aligned": [9, 8, 7, 5, 5], "r_base": [6, 7, 5, 4, 6]},
        "keywords": {"topic": ["war", "war", "war", "neutral", "neutral"], "control": "neutral"},
        "result": {
            "aligned_preferred_rate": 1.0,
            "mean_gap": 2.0,
            "wilcoxon_p": 0.125,
            "rate_over_control": 0.5,
            "gap_over_control": 2.0,
            "n_pairs": 3,
        },
    },
]
