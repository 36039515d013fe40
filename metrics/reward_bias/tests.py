"""Cases worked by hand; the names of `result` are the ones to compare."""

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
]
