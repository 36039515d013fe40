"""The published figures parse, are sourced, and equal the printed ones."""

from __future__ import annotations

import csv
import json
import re
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "leaderboard" / "published"
REFERENCE = ROOT.parent / "shared" / "data" / "reference"
COLUMNS = ["model", "label", "metric", "subset", "value", "n", "source", "note"]
FILES = sorted(path.name for path in PUBLISHED.glob("*.csv"))

GENERATORS = {
    "flux-dev": "Flux Dev",
    "dance-flux": "DanceFlux",
    "pref-flux": "PrefFlux",
    "flux-krea": "Flux Krea",
    "sdxl": "SDXL",
    "playground-v2.5": "Playground",
    "sd3.5-medium": "SD3.5M",
    "sd3.5m-geneval": "SD3.5M-GenEval",
    "sd3.5m-pickscore": "SD3.5M-PickScore",
    "nano-banana": "Nano Banana",
}
SITE_GENERATORS = ["gpt-image-1.5", "qwen-image", "seedream-4"]
REWARD_MODELS = {
    "hps": "HPS",
    "mps": "MPS",
    "pickscore": "PickScore",
    "imagereward": "ImageReward",
    "hpsv2.1": "HPSv2.1",
    "hpsv3": "HPSv3",
    "clip-l": "CLIP-L",
    "gpt-5-chat": "GPT-5-Chat",
    "blip-l": "BLIP-L",
}
GENERATOR_METRICS = {
    "delta_hpsv2": "delta_reward/hpsv2.1",
    "delta_hpsv3": "delta_reward/hpsv3",
    "hpsv3_after": "reward_after/hpsv3",
    "delta_image_reward": "delta_reward/imagereward",
    "delta_J": "delta_j_all",
    "J_after": "j_after",
    "blip": "blip_match",
    "success": "success_rate",
}
NOT_PUBLISHED = {
    "source",
    "clip_notebook_exact",
    "emotion_generation_alternative_itm_scores_2_from_notebook",
    "abstract_18_artworks_MWU",
}
"""Keys of the reference that hold no printed table: a description, notebook outputs, a table cut from the paper."""


def rows(name: str) -> list[dict[str, str]]:
    with (PUBLISHED / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def values(name: str, **where: str) -> dict[tuple[str, str, str], str]:
    """Every value of a file by (printed label, metric, subset)."""
    found = {
        (row["label"], row["metric"], row["subset"]): row["value"]
        for row in rows(name)
        if all(row[column] == wanted for column, wanted in where.items())
    }
    assert found
    return found


def numbers(name: str, **where: str) -> dict[tuple[str, str, str], float]:
    return {key: float(value) for key, value in values(name, **where).items()}


def columns_of(table: dict[str, list[float]]) -> list[str]:
    return [str(column) for column in table["columns"]]


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    path = REFERENCE / "published_numbers.json"
    if not path.is_file():
        pytest.skip("the reference figures are not beside the repository")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FILES)
def test_file_parses_and_every_row_has_a_source(name: str) -> None:
    table = rows(name)
    assert table
    expected = ["model", "label", "source", "note"] if name == "generators_pending.csv" else COLUMNS
    assert [column for column in table[0] if column != "f1_definition"] == expected
    for row in table:
        assert None not in row and None not in row.values()
        assert all(text == text.strip() for text in row.values())
        assert row["model"] and row["label"] and row["source"]
        if name != "generators_pending.csv":
            float(row["value"].lstrip("<~"))
            assert row["metric"] and row["subset"]
            assert row["n"] == "" or int(row["n"]) > 0


@pytest.mark.parametrize("name", [name for name in FILES if name != "generators_pending.csv"])
def test_no_cell_is_given_twice(name: str) -> None:
    keys = [(row["model"], row["metric"], row["subset"]) for row in rows(name)]
    assert len(keys) == len(set(keys))


def test_ten_generators_of_the_paper_three_of_the_site_and_seven_pending() -> None:
    sources = {row["model"]: row["source"] for row in rows("generators.csv")}
    assert [model for model, source in sources.items() if "generator table" in source] == list(GENERATORS)
    assert [model for model, source in sources.items() if "project site" in source] == SITE_GENERATORS
    pending = {row["model"] for row in rows("generators_pending.csv")}
    assert len(pending) == len(rows("generators_pending.csv")) == 7
    assert not pending & set(sources)


def test_nine_reward_models_each_with_its_definition_of_f1() -> None:
    table = rows("reward_models.csv")
    assert list(dict.fromkeys(row["model"] for row in table)) == list(REWARD_MODELS)
    definitions = {row["model"]: row["f1_definition"] for row in table if row["metric"] == "f1"}
    assert {model for model, kind in definitions.items() if kind == "weighted"} == {
        "imagereward",
        "hpsv2.1",
        "hpsv3",
        "blip-l",
    }
    assert {model for model, kind in definitions.items() if kind == "binary"} == {
        "hps",
        "mps",
        "pickscore",
        "clip-l",
        "gpt-5-chat",
    }
    assert all(row["f1_definition"] == "" for row in table if row["metric"] != "f1")


def test_generators_equal_the_printed_table(reference: dict[str, Any]) -> None:
    metrics = [GENERATOR_METRICS[column] for column in reference["table_generators_columns"]]
    printed = {
        (label, metric, "all"): value
        for label, line in reference["table_generators"].items()
        for metric, value in zip(metrics, line, strict=True)
    }
    assert {key: value for key, value in numbers("generators.csv").items() if key in printed} == printed
    assert {row["model"]: row["label"] for row in rows("generators.csv") if row["n"] == "300"} == GENERATORS


def test_site_generators_equal_the_printed_table(reference: dict[str, Any]) -> None:
    ours = {(row["model"], row["metric"]): float(row["value"]) for row in rows("generators.csv")}
    printed = {
        (model, GENERATOR_METRICS[column]): value
        for model, line in reference["table_generators_post_paper_site"].items()
        for column, value in line.items()
        if column != "note"
    }
    assert {key: value for key, value in ours.items() if key[0] in SITE_GENERATORS} == printed


def test_reward_models_equal_the_printed_table(reference: dict[str, Any]) -> None:
    printed = {
        (label, metric, "all"): value
        for label, line in reference["table_reward_models"].items()
        for metric, value in zip(reference["table_reward_models_columns"], line, strict=True)
        if value is not None
    }
    assert numbers("reward_models.csv") == printed
    assert {row["model"]: row["label"] for row in rows("reward_models.csv")} == REWARD_MODELS


def test_emotion_tables_equal_the_printed_ones(reference: dict[str, Any]) -> None:
    emotions = {"anger": "angry", "fear": "fearful", "sad": "sad"}
    assert numbers("emotion_reward_models.csv") == {
        (label, "emotion_accuracy", f"emotion={emotions[emotion]}"): value
        for label, line in reference["emotion_classification"].items()
        for emotion, value in line.items()
    }
    generation = reference["emotion_generation"]
    assert numbers("emotion_generators.csv") == {
        (label, "emotion_match", f"emotion={emotion}"): value
        for label, line in generation.items()
        if label != "columns"
        for emotion, value in zip(columns_of(generation), line, strict=True)
    }


def test_alignment_tests_equal_the_printed_table(reference: dict[str, Any]) -> None:
    names = {
        "hpsv3_p": "wilcoxon_p/hpsv3",
        "hpsv3_r": "wilcoxon_r/hpsv3",
        "J_p": "wilcoxon_p/j_after",
        "J_r": "wilcoxon_r/j_after",
        "mcnemar": "mcnemar_p",
    }
    marks = {"**": "<1e-10", "*": "<1e-5"}
    bases = {"DanceFlux": "flux-dev", "Playground": "sdxl", "SD3.5M-PickScore": "sd3.5-medium"}
    printed = {
        (label, names[column], f"base={bases[label]}"): marks.get(str(value), value)
        for label, line in reference["table_alignment_tests"].items()
        for column, value in line.items()
    }
    ours = values("alignment_tests.csv")
    assert {key: value if value.startswith("<") else float(value) for key, value in ours.items()} == printed


def test_reward_range_equals_the_printed_table(reference: dict[str, Any]) -> None:
    printed = numbers("reward_range.csv", subset="original images, all 3300 rows")
    for label, (mean, deviation) in reference["table_reward_baselines_mean_sd"].items():
        assert printed.pop((label, "mean", "original images, all 3300 rows")) == mean
        assert printed.pop((label, "sd", "original images, all 3300 rows")) == deviation
    assert not printed


def test_paintings_equal_the_printed_figures(reference: dict[str, Any]) -> None:
    lapis = reference["lapis"]
    ours = numbers("lapis_place.csv")
    labels = {"ImgRewd": lapis["image_reward"], "HPSv2": lapis["hpsv2"]}
    labels["HPSv3"] = [lapis["hpsv3_mean"], lapis["s"], lapis["rank"]]
    for label, (mean, place, rank) in labels.items():
        assert ours.pop((label, "mean", "all")) == mean
        assert ours.pop((label, "relative_place", "all")) == place
        counts = [ours.pop((label, metric, "all")) for metric in ("leaderboard_rank", "leaderboard_size")]
        assert "/".join(f"{count:g}" for count in counts) == rank
    assert ours == {
        ("BLIP", "match", "own caption"): lapis["blip"],
        ("BLIP", "match", "shuffled captions"): lapis["blip_shuffled"],
    }
    assert {row["subset"].split(" (")[0]: row["value"] for row in rows("single_paintings.csv")} == {
        "The Scream": "5.23",
        "Luxe, Calme et Volupté": "1.73",
    }


def test_the_place_of_paintings_follows_from_the_leaderboard(reference: dict[str, Any]) -> None:
    board = {row["label"]: float(row["value"]) for row in rows("hpsv3_leaderboard.csv")}
    assert board == reference["hpsv3_leaderboard"]
    assert {row["metric"] for row in rows("hpsv3_leaderboard.csv")} == {"hpsv3"}
    del board["CoHP"]
    paintings = numbers("lapis_place.csv")
    mean = paintings["HPSv3", "mean", "all"]
    place = (mean - min(board.values())) / (max(board.values()) - min(board.values()))
    assert round(place, 2) == paintings["HPSv3", "relative_place", "all"]
    assert 1 + sum(value > mean for value in board.values()) == paintings["HPSv3", "leaderboard_rank", "all"]
    assert 1 + len(board) == paintings["HPSv3", "leaderboard_size", "all"]


def test_real_photographs_equal_the_printed_figures(reference: dict[str, Any]) -> None:
    classes = {
        "Color": "class=color_and_tone",
        "Clarity": "class=clarity_and_focus",
        "Lighting": "class=lighting_and_exposure",
        "Composition": "class=composition_and_structure",
        "Emotion": "class=emotion_and_subject",
        "Overall": "all",
    }
    figures = reference["real_images"]
    printed = {
        ("HPSv3", "photographs", "selected"): str(figures["distinct"]),
        ("HPSv3", "photographs", "kept"): str(figures["after_filter"]),
        ("HPSv3", "gap", "all"): f"{figures['mean_gap_hpsv3']:.2f}",
        ("HPSv3", "gap", "element=analog_degradation"): str(figures["analog_degradation_gap"]),
        ("HPSv3", "gap", "element=intentional_blur"): figures["intentional_blur_and_exposure_gap"],
        ("HPSv3", "gap", "element=exposure_extremes"): figures["intentional_blur_and_exposure_gap"],
    }
    for label, value in reference["real_category_bars_in_leaderboard_figure"].items():
        printed["HPSv3", "figure_bar", classes[label]] = f"{value:.2f}"
    assert values("real_photographs.csv") == printed


def test_social_critique_equals_the_printed_tables(reference: dict[str, Any]) -> None:
    pair = "dance-flux against flux-krea"
    printed = {(label, "chose_aligned", pair): str(n) for label, n in reference["newspeak_selection_of_20"].items()}
    for label, (p, r) in reference["newspeak_wilcoxon_p_r"].items():
        printed[label, "wilcoxon_p", pair] = p if isinstance(p, str) else f"{p:.4f}"
        printed[label, "wilcoxon_r", pair] = f"{r:.4f}"
    assert values("social_critique_choices.csv") == printed

    scores = {
        (label, "score", f"pair={number}/generator={generator}"): value
        for number, example in enumerate(reference["newspeak_sample_scores_dance_vs_krea"], start=1)
        for label, line in example.items()
        for generator, value in zip(("dance-flux", "flux-krea"), line, strict=True)
    }
    ours = {label: model for model, label in GENERATORS.items()}
    by_hand = reference["newspeak_hand_prompts_hpsv3"]
    for topic, line in by_hand.items():
        if topic != "columns":
            for label, value in zip(columns_of(by_hand), line, strict=True):
                scores["HPSv3", "score", f"topic={topic}/generator={ours[label]}"] = value
    assert numbers("social_critique_scores.csv") == scores


def test_mitigation_and_editing_equal_the_printed_tables(reference: dict[str, Any]) -> None:
    metrics = ["hpsv3", "j_s", "blip_match"]
    assert reference["mitigation_columns"] == ["method", "scale", "hpsv3", "J_s", "blip"]
    assert numbers("mitigation.csv") == {
        (label, metric, f"method={method.lower()}/scale={scale}"): value
        for label, lines in reference["mitigation"].items()
        for method, scale, *line in lines
        for metric, value in zip(metrics, line, strict=True)
    }
    names = {"delta_hpsv3": "delta_reward/hpsv3", "delta_J": "delta_j_all"}
    assert numbers("image_to_image.csv") == {
        (label, names[column], "strength=0.5"): value
        for label, line in reference["img2img"].items()
        for column, value in line.items()
    }


def test_judge_agreement_equals_the_printed_figures(reference: dict[str, Any]) -> None:
    human, second, dimension = reference["human_eval"], reference["second_llm"], reference["judge_validation"]
    printed = {
        ("Qwen3-VL-235B", "raters"): human["raters"],
        ("Qwen3-VL-235B", "images"): human["images"],
        ("Qwen3-VL-235B", "images_per_rater"): human["per_rater"],
        ("Qwen3-VL-235B", "mae"): human["MAE"],
        ("Qwen3-VL-235B", "quadratic_kappa"): human["quadratic_kappa"],
        ("Qwen3-VL-235B", "accuracy_ties_removed"): human["accuracy_ties_removed"],
        ("Qwen3-VL-235B", "accuracy_ties_merged"): human["accuracy_tie_grouped_with_original"],
        ("GPT-5-Chat", "quadratic_kappa"): second["quadratic_kappa"],
        ("GPT-5-Chat", "mae"): second["MAE"],
        ("fine-tuned Qwen3-VL-4B", "mae"): dimension["MAE"],
        ("fine-tuned Qwen3-VL-4B", "weighted_mae"): dimension["WMAE"],
        ("fine-tuned Qwen3-VL-4B", "f1_weighted"): dimension["WF1"],
    }
    assert {key[:2]: value for key, value in numbers("judge_agreement.csv").items()} == printed


def test_every_printed_table_is_looked_at(reference: dict[str, Any]) -> None:
    looked_at = set(re.findall(r'reference\["(\w+)"\]', Path(__file__).read_text(encoding="utf-8")))
    assert looked_at | NOT_PUBLISHED == set(reference)
    assert not looked_at & NOT_PUBLISHED


@pytest.fixture(scope="module")
def scores() -> dict[str, list[dict[str, str]]]:
    path = REFERENCE / "scores_3300.csv"
    if not path.is_file():
        pytest.skip("the authors' scores are not beside the repository")
    by_label: dict[str, list[dict[str, str]]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            by_label[row["paper_label"]].append(row)
    return by_label


SCORE_COLUMNS = {"hpsv3": "hpsv3", "hpsv2.1": "hpsv2", "imagereward": "image_reward"}


@pytest.mark.parametrize("generator", GENERATORS)
def test_reward_figures_follow_from_the_authors_scores(generator: str, scores: dict[str, list[dict[str, str]]]) -> None:
    pairs = scores[GENERATORS[generator]]
    assert len(pairs) == 300
    for row in rows("generators.csv"):
        kind, _, reward_model = row["metric"].partition("/")
        if row["model"] != generator or kind not in ("delta_reward", "reward_after"):
            continue
        column = SCORE_COLUMNS[reward_model]
        mean = statistics.fmean(float(pair[f"{column}_diop"]) for pair in pairs)
        if kind == "delta_reward":
            mean -= statistics.fmean(float(pair[f"{column}_oiop"]) for pair in pairs)
        # The one exception rests on failed images; its note gives the figure without them.
        failed = (generator, reward_model) == ("nano-banana", "hpsv2.1")
        assert abs(mean - (-0.075 if failed else float(row["value"]))) <= 0.000501
        assert failed == ("-0.075" in row["note"])


def test_corrected_reward_range_follows_from_the_authors_scores(scores: dict[str, list[dict[str, str]]]) -> None:
    everything = [row for block in scores.values() for row in block]
    samples = {
        "original images, all 3300 rows": everything,
        "original images, generator=nano-banana": scores["Nano Banana"],
    }
    for row in rows("reward_range.csv"):
        column = f"{SCORE_COLUMNS[row['model']]}_oiop"
        sample = [float(line[column]) for line in samples[row["subset"]]]
        assert len(sample) == int(row["n"])
        value = statistics.fmean(sample) if row["metric"] == "mean" else statistics.stdev(sample)
        if "0.034 without the 24 failed images" in row["note"]:
            assert (row["value"], round(value, 3)) == ("0.036", 0.034)
        else:
            digits = len(row["value"].partition(".")[2])
            assert abs(value - float(row["value"])) <= 0.51 * 10**-digits
