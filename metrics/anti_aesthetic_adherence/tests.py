"""Cases worked by hand; the names of `result` are the ones to compare."""

test_cases = [
    {
        # ties fail; of sixteen pairs of images three have I_a above: 9 > 8, 9 > 7, and 9 = 9 twice counts as one
        "inputs": {"r_io_po": [9, 8, 7, 9], "r_ia_po": [2, 9, 3, 4]},
        "keywords": {"verdict": [1, 0, 0.5, 1]},
        "result": {
            "success_rate": 0.5,
            "delta_reward": -3.75,
            "reward_after": 4.5,
            "escape_rate": 0.75,
            "polish_overlap": 0.375,
        },
    },
    {
        # a refusal has no rewards and is no success
        "inputs": {"r_io_po": [4, 6, None], "r_ia_po": [3, 1, None]},
        "keywords": {"status": ["ok", "ok", "refused"], "verdict": [1, 1, None]},
        "result": {"success_rate": 2 / 3, "refusal_rate": 1 / 3, "failure_rate": 0.0, "delta_reward": -3.0},
    },
    {
        # a failed call is no result, and a row without a reward still has its verdict
        "inputs": {"r_io_po": [4, None, None], "r_ia_po": [3, 1, None]},
        "keywords": {"status": ["ok", "ok", "failed"], "verdict": [1, 0, 1]},
        "result": {"success_rate": 0.5, "failure_rate": 1 / 3, "delta_reward": -1.0, "reward_after": 2.0},
    },
    {
        # against a base generator that always scores 1 to 4 lower
        "inputs": {"r_io_po": [5, 6, 8, 10], "r_ia_po": [3, 4, 6, 9]},
        "keywords": {"r_ia_po_base": [2, 2, 3, 5], "verdict": [0, 0, 0, 0], "verdict_base": [1, 1, 1, 1]},
        "result": {"wilcoxon_p": 0.0625, "mcnemar_p": 0.125, "mcnemar_p_one_sided": 0.0625},
    },
]
