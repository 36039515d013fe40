"""Cases worked by hand; the names of `result` are the ones to compare."""

test_cases = [
    {
        # steps apart: 0, 1, 0, 2; with ties as 0 the second differs, and so does the last
        "inputs": {"verdict": [1, 1, 0.5, 0], "reference": [1, 0.5, 0.5, 1]},
        "keywords": {},
        "result": {
            "accuracy": 0.5,
            "accuracy_ties_dropped": 0.5,
            "accuracy_ties_merged": 0.5,
            "mae": 0.75,
            "majority_baseline": 0.5,
            "n_decided": 2,
        },
    },
    {
        # Σ d² = 2; Σ (i² + j²) − 2 Σi Σj / n = 10 + 10 − 2 · 6 · 6 / 6 = 8
        "inputs": {"verdict": [0, 0, 1, 1, 2, 2], "reference": [0, 1, 1, 0, 2, 2]},
        "keywords": {"categories": [0, 1, 2], "tie": None},
        "result": {"quadratic_kappa": 0.75, "mae": 1 / 3, "majority_baseline": 1 / 3, "majority_category": 0},
    },
    {
        # of four pairs asked in both orders three change: twice to the first image shown, once from a tie
        "inputs": {"verdict": [0.5, 0.5, 1, 0.5], "reference": [1, 0, 1, 1]},
        "keywords": {"verdict_first": [1, 1, 1, 0.5], "verdict_second": [0, 0, 1, 1]},
        "result": {"position_bias_rate": 0.75, "first_shown_rate": 1, "n_both_orders": 4, "n_reversed": 2},
    },
]
