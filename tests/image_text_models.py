"""Tiny image-text models with random weights, in folders as transformers saves them."""

import torch

SIDE = 32


def save_tokenizer(folder):
    """One token per letter; a letter that it does not know is <unknown>."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = ["<start>", "<end>", "<unknown>", *"abcdefghijklmnopqrstuvwxyz ,"]
    tokenizer = Tokenizer(models.WordLevel({letter: n for n, letter in enumerate(letters)}, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.post_processor = processors.BertProcessing(("<end>", 1), ("<start>", 0))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<start>", eos_token="<end>", pad_token="<end>", unk_token="<unknown>"
    ).save_pretrained(folder)


def processor_of(name):
    """The image processor that works with Pillow; before transformers 5 there was no other."""
    import transformers

    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


def save_model(folder, kind, seed=0):
    """A model of transformers with its processor and tokenizer, `kind` clip or siglip."""
    import transformers

    torch.manual_seed(seed)
    tower = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tower, "vocab_size": 40, "max_position_embeddings": 20, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**tower, "image_size": SIDE, "patch_size": 8}
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
        model = transformers.CLIPModel(config)
        processor = processor_of("CLIPImageProcessor")(size={"shortest_edge": SIDE}, crop_size=SIDE)
    else:
        config = transformers.SiglipConfig(text_config={**text, "projection_size": 16}, vision_config=vision)
        model = transformers.SiglipModel(config)
        processor = processor_of("SiglipImageProcessor")(size={"height": SIDE, "width": SIDE})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    save_tokenizer(folder)
    return folder
