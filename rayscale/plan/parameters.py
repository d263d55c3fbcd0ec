"""How many parameters a model has, from its config or from the header of its weights: no torch, no weights read.

The same `family_config` builds the real model (nn.models) and is counted here, so a plan and a run cannot disagree.
Long because every architecture that is counted has its formula here.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from rayscale.errors import InputError
from rayscale.study.lora import Lora, is_of_mixture
from rayscale.study.tasks import find_kind

# What configs of different architectures call their number of layers and the width of their hidden states.
DEPTH_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "num_encoder_layers")
WIDTH_KEYS = ("hidden_size", "n_embd", "dim", "d_model", "emb_dim")
WIDTH = 768  # of BERT, GPT-2 and most others where the config says none
#: Decoders whose last state alone says what a whole text is, by one matrix without bias: no layer stands before it.
LABELLED_BY_LAST_STATE = frozenset((
    "apertus", "arcee", "axk1", "axk2", "biogpt", "bloom", "cohere_compass_text", "ctrl", "deepseek_v2",
    "deepseek_v3", "diffllama", "doge", "exaone4", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "glm",
    "glm4", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "helium", "hunyuan_v1_dense",
    "hunyuan_v1_moe", "jamba", "jetmoe", "llama", "minicpm3", "minimax", "ministral", "ministral3", "mistral",
    "mistral4", "mixtral", "mpt", "nemotron", "olmo", "olmo2", "olmo3", "openai-gpt", "opt", "persimmon", "phi",
    "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_5", "qwen3_5_text", "qwen3_moe", "qwen3_next",
    "seed_oss", "smollm3", "stablelm", "starcoder2", "zamba", "zamba2"
))  # fmt: skip
#: Encoders with a square layer, of the head or a pooler that nothing reads, before labels of tokens, too.
SQUARE_FOR_TOKENS = ("modernbert", "fnet", "squeezebert", "layoutlm", "canine")
#: Those without one before labels of texts.
NO_SQUARE_FOR_TEXTS = ("xlm", "flaubert", "ultrabert")
SHARED_LAYERS = ("albert",)  # one set of weights is all layers, however many: a cut model has as many parameters
HEAD_WIDTH = 32
FEED_FORWARD = 4
# Tables that are looked up, not multiplied: the parameters Kaplan et al. 2020 (arXiv 2001.08361) leave out of N.
EMBEDDING_WEIGHT = re.compile(
    r"(^|\.)(shared|w|relative_attention_bias|(\w+_)?embeddings?(_\d+)?|HashBucketCodepointEmbedder_\d+|embed(_(tokens|"
    r"positions|in|global|tokens_per_layer))?|\w+_embed|wte|wpe)\.weight$"
)
# Kept in files beside weights, and never learnt.
BUFFER = re.compile(
    r"(^|\.)(final_logits_bias|masked_bias|inv_freq|e_score_correction_bias|act_fn\.(beta|eps)|slope_rate|"
    r"(query|key|diagonal)_decay|layer_scalar|expert_bias|balancing_biases|llm\.layers\.\d+\.mlp\.gate\.bias|"
    r"LayerNorm\.shift|(weight|bias)_integer|x_(min|max)|\w*scaling_factor)$"
)
#: Whose experts' biases are parameters, not buffers as of others.
EXPERTS_BIASED = ("afmoe", "ernie4_5_moe", "laguna")
LAYER_NUMBER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|attentions|ffns|layer_norm[12])\.(\d+)\.")


def family_config(
    family: str, layers: int, width: int, vocabulary: int, max_length: int, n_labels: int
) -> dict[str, Any]:
    """The Hugging Face config, as keywords, of one rung of a ladder: `layers` deep and `width` wide.

    Heads are 32 wide (or the next larger size that divides the width), the feed-forward part is 4 * width. Initial
    weights have the standard deviation `initial_deviation(width)`. Dropout is 0 for GPT-2 (one pass over the text
    cannot be learnt by heart) and 0.1 for BERT (several passes). `max_length` is the number of positions; `n_labels` is
    read for BERT only. T5 has as many layers in its encoder as in its decoder, and positions without end.

    Raises InputError for an unknown family or a size below 1.
    """
    if family not in ("bert", "gpt2", "t5"):
        raise InputError(f"unknown model family '{family}'; the ladders are bert, gpt2 and t5", code="unknown_family")
    if min(layers, width, vocabulary, max_length) < 1:
        size = f"the size {layers}x{width} with a vocabulary of {vocabulary} and {max_length} positions"
        raise InputError(f"a {family} ladder cannot have {size}; all are whole numbers above 0", code="bad_size")
    heads = next(n for n in range(max(1, width // HEAD_WIDTH), 0, -1) if width % n == 0)
    common = {"model_type": family, "vocab_size": vocabulary}
    if family == "t5":  # its own initial weights follow the width already
        return {
            **common,
            "d_model": width,
            "d_kv": width // heads,
            "d_ff": FEED_FORWARD * width,
            "num_layers": layers,
            "num_decoder_layers": layers,
            "num_heads": heads,
            "dropout_rate": 0.1,
        }
    if family == "gpt2":
        return {
            **common,
            "n_positions": max_length,
            "n_embd": width,
            "n_layer": layers,
            "n_head": heads,
            "n_inner": FEED_FORWARD * width,
            "initializer_range": initial_deviation(width),
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "use_cache": False,
            # GPT-2's own numbers lie outside other vocabularies; the tokenizer says what its special tokens are.
            "bos_token_id": None,
            "eos_token_id": None,
        }
    return {
        **common,
        "max_position_embeddings": max_length,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": FEED_FORWARD * width,
        "type_vocab_size": 2,
        "initializer_range": initial_deviation(width),
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "num_labels": n_labels,
    }


def depth_of(name: str, config: Mapping[str, Any]) -> int:
    """The layers of a checkpoint called `name`, by its config.json. Raises InputError where none are told."""
    for key in DEPTH_KEYS:
        if isinstance(config.get(key), int) and config[key] > 0:
            return int(config[key])
    parts = [key for key, part in config.items() if isinstance(part, Mapping) and part.keys() & set(DEPTH_KEYS)]
    why = f"keeps its sizes in parts ({', '.join(parts)})" if parts else f"tells none of {', '.join(DEPTH_KEYS)}"
    text = f"{name} is a '{config.get('model_type')}' checkpoint, whose config.json {why}, so that it cannot be sized"
    raise InputError(f"{text} by its layers; give one of another architecture", code="wrong_architecture")


def initial_deviation(width: int) -> float:
    """Standard deviation of initial weights, GPT-2's 0.02 at 768 wide carried to other widths as 1 / sqrt(width).

    A fixed 0.02 starts narrow models close to zero: measured on the built-in text (2x64, 100,000 tokens, batch of 8
    windows) it costs 0.3 nats per token.
    """
    return 0.02 * (768 / width) ** 0.5


def count(
    config: Mapping[str, Any],
    task_type: str,
    n_labels: int,
    layers: int | None = None,
    folder: Path | str | None = None,
) -> tuple[int, int]:
    """(all parameters, parameters without the embedding tables) of a model with the head of the task.

    `config` has the keys of a Hugging Face config.json (missing ones have the defaults of its model type); `layers`
    cuts the depth. With w = width, f = feed-forward width, V, P, T = vocabulary, positions, token types, L = labels
    and n = layers:

        layer    = 4(w^2 + w) + (wf + f) + (fw + w) + 4w          (= 12w^2 + 13w at f = 4w)
        bert     = (V + P + T)w + 2w + n layer + (w^2 + w) + (w + 1)L      sequence-classification, multi-label
        bert     = (V + P + T)w + 2w + n layer + (w + 1)L                  token-classification, without a pooler
        gpt2     = (V + P)w + n layer + 2w                                 causal-lm, the head tied to the embedding
        gpt2     = (V + P)w + n layer + 2w + wL                            the same, a head without bias
        gpt2     = (V + P)w + n layer + 2w + (w + 1)L                      token-classification

    question-answering is as token-classification with L = 2. Other model types are counted from the weights in
    `folder`: all of them where the task writes, else those of the body and `count_head`. Raises InputError for BERT
    with causal-lm, and for another model type without a folder.
    """
    kind = config.get("model_type")
    writes = find_kind(task_type).writes
    head = count_head(config, task_type, n_labels)
    if kind == "bert" and not writes:
        width, depth = int(config.get("hidden_size", WIDTH)), int(config.get("num_hidden_layers", 12))
        inner = int(config.get("intermediate_size", 3072))
        positions = int(config.get("max_position_embeddings", 512)) + int(config.get("type_vocab_size", 2))
        vocabulary = int(config.get("vocab_size", 30522))
    elif kind == "gpt2" and task_type != "seq2seq":
        width, depth = int(config.get("n_embd", WIDTH)), int(config.get("n_layer", 12))
        inner = int(config.get("n_inner") or FEED_FORWARD * width)
        positions = int(config.get("n_positions", 1024))
        vocabulary = int(config.get("vocab_size", 50257))
        if writes and not config.get("tie_word_embeddings", True):
            head = width * vocabulary
    elif kind == "t5" and task_type == "seq2seq" and folder is None:
        return _count_t5(config)
    elif kind not in ("bert", "gpt2") and folder is not None:
        if writes:
            shapes = dict(_floating_tensors(Path(folder), kind))
            total, non_embedding = _sum(folder, shapes, layers)
            return total + _unsaved(config, shapes), non_embedding
        shapes = {name: shape for name, shape in _floating_tensors(Path(folder), kind) if _serves(name, task_type)}
        total, non_embedding = _sum(folder, _body(shapes), None if kind in SHARED_LAYERS else layers)
        return total + head, non_embedding + head
    else:
        raise InputError(f"a '{kind}' model cannot do {task_type}; for causal-lm use gpt2", code="wrong_architecture")
    layer = 4 * (width**2 + width) + (width * inner + inner) + (inner * width + width) + 4 * width
    body = (depth if layers is None else layers) * layer + 2 * width + head
    return body + (vocabulary + positions) * width, body


def count_head(config: Mapping[str, Any], task_type: str, n_labels: int) -> int:
    """Parameters that a task adds to the body of a checkpoint: those that learn beside adapters.

    With w = width and L = labels (of question-answering 2, where an answer begins and ends): (w + 1)L for tokens. For
    texts besides that a square layer of w^2 + w, be it a pooler (BERT, DeBERTa) or part of the head (RoBERTa, ELECTRA,
    DistilBERT, MPNet), but wL alone in decoders. Some have the square layer for tokens, too (SQUARE_FOR_TOKENS);
    BigBird has a pooler beside all of that, but for questions a feed-forward part in its place. Tasks that write have
    their output from the checkpoint.
    """
    if find_kind(task_type).writes:
        return 0
    width = next((int(config[key]) for key in WIDTH_KEYS if config.get(key)), WIDTH)
    labels = 2 if task_type == "question-answering" else n_labels
    kind = config.get("model_type")
    texts = find_kind(task_type).labels_texts
    if texts and kind in LABELLED_BY_LAST_STATE:
        return width * labels
    square = width**2 + width
    with_square = kind not in NO_SQUARE_FOR_TEXTS if texts else kind in SQUARE_FOR_TOKENS
    head = (width + 1) * labels + (square if with_square else 0)
    if kind == "modernbert-decoder":
        head -= labels  # no bias
    if kind == "splinter" and task_type == "question-answering":
        return 4 * (square + 2 * width) + 2 * width**2
    if kind == "big_bird":
        inner = int(config.get("intermediate_size", 3072))
        head += 2 * width * inner + inner + 3 * width if task_type == "question-answering" else square
    return head


def _count_t5(config: Mapping[str, Any]) -> tuple[int, int]:
    """As `count`, of a T5 of the first version: no biases, the output tied to the embedding of V tokens, and tables of
    relative positions of 32 entries for each of h heads in encoder and decoder, which count as embeddings.

    With n layers in each: n (4w^2 + 2wf + 2w) + n (8w^2 + 2wf + 3w) + 2w + Vw + 64h.
    """
    width, inner, layers = int(config["d_model"]), int(config["d_ff"]), int(config["num_layers"])
    attention = 4 * width * int(config["num_heads"]) * int(config["d_kv"])
    body = layers * (3 * attention + 4 * width * inner + 5 * width) + 2 * width
    return body + int(config["vocab_size"]) * width + 64 * int(config["num_heads"]), body


def _unsaved(config: Mapping[str, Any], saved: Iterable[str]) -> int:
    """Entries of tables that a model has and transformers does not save: sines of positions."""
    if config.get("model_type") != "marian" or any(name.endswith("embed_positions.weight") for name in saved):
        return 0
    return 2 * int(config.get("max_position_embeddings", 1024)) * int(config.get("d_model", 1024))


def _body(shapes: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """What a head is put on: without the heads that the checkpoint was trained with, and without a pooler.

    A body that was saved with a head has a name of its own, below which embeddings and layers have their places.
    """
    marks = [EMBEDDING_WEIGHT.search(name) or LAYER_NUMBER.search(name) for name in shapes]
    above = [f".{mark.string[: mark.start()]}".removesuffix(".embeddings").split(".")[1:] for mark in marks if mark]
    common = takewhile(lambda parts: len(set(parts)) == 1, zip(*above, strict=False))
    prefix = "".join(f"{parts[0]}." for parts in common if parts[0])
    return {
        name: shape
        for name, shape in shapes.items()
        if name.startswith(prefix) and not name.startswith("lm_head.") and ".pooler." not in f".{name}"
    }


def _serves(name: str, task_type: str) -> bool:
    """Whether a task's model has this part of a checkpoint: labels of tokens are read off the encoder of a T5."""
    return task_type != "token-classification" or not name.startswith("decoder.")


def _sum(folder: Path | str, shapes: Mapping[str, list[int]], layers: int | None) -> tuple[int, int]:
    numbers = {name: _layer(name) for name in shapes}
    depth = 1 + max(numbers.values(), default=-1)
    if layers is not None and not depth:
        text = f"{folder} has no layers by the names that are known (such as layers.0), so it cannot be sized"
        raise InputError(f"{text}; give a checkpoint of another architecture", code="wrong_architecture")
    if layers is not None and layers > depth:
        text = f"{folder} has {depth} layers, {layers} were asked for; ask for 1 to {depth}"
        raise InputError(text, code="too_many_layers")
    sizes = {name: math.prod(shapes[name]) for name in shapes if layers is None or numbers[name] < layers}
    total = sum(sizes.values())
    return total, total - sum(size for name, size in sizes.items() if EMBEDDING_WEIGHT.search(name))


def _layer(name: str) -> int:
    """The number of the layer that a weight is in, from 0; -1 for one outside of the layers."""
    numbered = LAYER_NUMBER.search(name)
    return int(numbered[1]) if numbered else -1


def check_weights(folder: Path) -> None:
    """Raises InputError where a checkpoint's folder has no safetensors, or one that cannot be read."""
    for _ in _floating_tensors(folder):
        pass


def _floating_tensors(folder: Path, kind: object = None) -> Iterable[tuple[str, list[int]]]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        text = f"{folder} has no *.safetensors file; save the model with save_pretrained to get one"
        raise InputError(text, code="no_safetensors")
    for file in files:
        # Layout: 8 bytes, little-endian length of the header, then the header as JSON (safetensors README).
        try:
            with file.open("rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))
                if length > file.stat().st_size:
                    raise ValueError("the header is longer than the file")
                header: dict[str, Any] = json.loads(stream.read(length))
        except (ValueError, struct.error) as error:
            text = f"{file} is not a safetensors file: {error}; fetch it again"
            raise InputError(text, code="bad_safetensors") from error
        for name, entry in header.items():
            buffer = BUFFER.search(name) and not (kind in EXPERTS_BIASED and name.endswith("_bias"))
            if name == "__metadata__" or buffer or not str(entry["dtype"]).startswith(("F", "BF")):
                continue  # integer tensors are buffers, such as position numbers
            shape = [int(side) for side in entry["shape"]]
            later_masked = name.endswith((".attn.bias", ".attention.bias")) and len(shape) >= 4  # a buffer, too
            if not later_masked:
                yield name, shape


def count_adapters(folder: Path | str, layers: int, lora: Lora, task_type: str) -> int:
    """Parameters of the adapters of the first `layers` layers of a checkpoint: rank x (in + out) for each matrix.

    Reads headers only; counts what the task's model has. Raises InputError as `Lora.choose` does, and for files that
    are not safetensors.
    """
    sides = {}
    for name, shape in _floating_tensors(Path(folder)):
        matrix = len(shape) == 2 and name.endswith(".weight") and not EMBEDDING_WEIGHT.search(name)
        if matrix and 0 <= _layer(name) < layers and _serves(name, task_type):
            sides[name.removesuffix(".weight")] = sum(shape)
    return lora.rank * sum(sides[name] for name in lora.choose(sides))


def has_head(folder: Path | str, task_type: str, n_labels: int) -> bool:
    """Whether a checkpoint brings a head of this size for the task, with which training begins in place of a new one.

    Transformers takes a head by the names and shapes of its weights, whatever its classes meant: that of tags serves
    for texts, too, where both are called alike. Reads headers only.
    """
    if find_kind(task_type).writes:
        return False
    shapes = dict(_floating_tensors(Path(folder)))
    body = _body(shapes)
    asks = task_type == "question-answering"
    classes = 2 if asks else n_labels
    others = ("cls.", "lm_head.", "generator_")  # outputs of language models
    return any(
        len(shape) == 2 and shape[0] == classes and asks == name.startswith("qa_outputs.")
        for name, shape in shapes.items()
        if name not in body and ".pooler." not in f".{name}" and not name.startswith(others)
    )


def count_mixture(folder: Path | str, layers: int) -> int:
    """Parameters of the experts of the first `layers` layers of a checkpoint, and of what chooses among them."""
    tensors = _floating_tensors(Path(folder))
    return sum(math.prod(shape) for name, shape in tensors if 0 <= _layer(name) < layers and is_of_mixture(name))


def training_flops(
    token_params: int, example_params: int, layers: int, width: int, tokens: int, token_pairs: int, examples: int
) -> float:
    """Floating-point operations of training: 6 per parameter and token, and attention (Chowdhery et al. 2022, PaLM,
    arXiv 2204.02311, appendix B): 6 N tokens + 12 layers width sum(length^2).

    `token_params` are the parameters multiplied once per token (body without embedding tables, and the language-model
    head), `example_params` those multiplied once per example (pooler and classification head). `tokens`, `token_pairs`
    (the sum of squared lengths) and `examples` count what was processed, all epochs, padding left out. Attention is not
    halved for causal models, as is the custom.
    """
    return 6.0 * (token_params * tokens + example_params * examples) + 12.0 * layers * width * token_pairs
