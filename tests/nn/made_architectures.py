"""A tiny checkpoint of any text architecture of transformers, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers.models.auto import modeling_auto

ROWS = 320  # of the embedding tables, of which the texts use few
WIDTH = 16
PAD, UNK, BOS, EOS, MASK = 5, 1, 2, 3, 4  # padding is none of the first, and no text holds it
SPECIAL = ("<first>", "<unk>", "<s>", "</s>", "<mask>", "<pad>")
ADDED = "new0"  # a token that was added to the vocabulary afterwards
WORDS = (
    [f"{part}{number}" for part in ("cat", "dog", "owl") for number in range(3)]
    + [f"w{n}" for n in range(40)]
    + [ADDED]
)

HEADS = {
    "sequence-classification": transformers.AutoModelForSequenceClassification,
    "multi-label": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "question-answering": transformers.AutoModelForQuestionAnswering,
    "seq2seq": transformers.AutoModelForSeq2SeqLM,
    "causal-lm": transformers.AutoModelForCausalLM,
}
WRITERS = ("causal-lm", "seq2seq")

#: Sizes by the names that configs have for them.
SIZES: dict[str, int] = {
    **dict.fromkeys(("vocab_size",), ROWS),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "word_embed_proj_dim",
                     "true_hidden_size", "intra_bottleneck_size", "hidden_size_per_layer_input",
                     "attention_hidden_size", "dim_model", "lru_width", "model_dim", "ngram_hidden"), WIDTH),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff",
                     "n_inner", "ffn_hidden_size", "d_inner", "intermediate_size_mlp", "dim_ff",
                     "shared_expert_intermediate_size", "moe_intermediate_size", "shared_intermediate_size",
                     "moe_shared_expert_intermediate_size", "intra_intermediate_size", "feed_forward_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
                     "num_decoder_layers", "num_encoder_layers", "attention_num_hidden_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
                     "decoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads",
                     "num_key_value_heads", "linear_num_key_heads", "linear_num_value_heads", "num_kv_heads",
                     "mamba_n_heads", "mamba_num_heads", "swa_num_attention_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "attention_head_dim", "v_head_dim", "qk_nope_head_dim",
                     "qk_rope_head_dim", "linear_key_head_dim", "linear_value_head_dim", "mamba_d_head",
                     "mamba_head_dim", "q_lora_rank", "kv_lora_rank", "qk_head_dim", "global_head_dim",
                     "index_head_dim", "swa_head_dim", "swa_v_head_dim"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_source_positions",
                     "max_target_positions", "max_sequence_length"), 64),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "num_experts_per_token", "moe_topk"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace", "decoder_start_token_id",
                     "num_encoder_blocks", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("mamba_d_state", "state_size", "mamba_d_ssm", "ssm_state_size", "chunk_size",
                     "mamba_chunk_size"), 8),
    "num_buckets": 8, "block_size": 4, "num_random_blocks": 1, "relative_attention_num_buckets": 8, "index_n_heads": 2,
    "index_topk": 64,
    "rotary_dim": 4, "type_vocab_size": 2, "vocab_size_per_layer_input": ROWS,
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
#: What single kinds need besides.
OWN: dict[str, dict[str, Any]] = {
    "xlnet": {"n_head": 2, "d_model": WIDTH, "d_head": 8},
    "xlm": {"emb_dim": WIDTH},
    "longformer": {"attention_window": 4},
    "led": {"attention_window": 4},
    "reformer": {"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [8, 8], "attn_layers": ["local", "local"],
                 "attention_head_size": 8, "is_decoder": False, "local_attn_chunk_length": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "hidden_size": WIDTH},
    "funnel": {"block_sizes": [1, 1]},
    "layoutlmv2": {"has_relative_attention_bias": False},
    "canine": {"num_hash_buckets": 32, "downsampling_rate": 2, "local_transformer_stride": 8},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 8},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "mpnet": {"relative_attention_num_buckets": 32},
    "lilt": {"hidden_size": 24},
    "esm": {"vocab_size": ROWS, "mask_token_id": MASK},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "codegen": {"n_head": 4, "n_embd": 32, "rotary_dim": 4},
    **{key: {"mamba_expand": 1} for key in ("bamba", "granitemoehybrid")},
    "falcon_h1": {"mamba_expand": 1, "mamba_d_ssm": 16},
    "zaya": {"num_experts_per_tok": 1},
    "lfm2_moe": {"layer_types": ["full_attention", "conv"]},
    "longcat_flash": {"num_hidden_layers": 4, "qk_head_dim": 16, "zero_expert_num": 2, "expert_ffn_hidden_size": 16},
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "mistral4": {"rope_parameters": {**ROPE, "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 64}},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "mamba_dt_rank": 2, "num_hidden_layers": 4,
              "attention_hidden_size": 32, "attention_head_dim": 16},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "hybrid_layer_ids": [1, 3], "n_mamba_heads": 2,
               "mamba_headdim": 16, "adapter_rank": 2, "mamba_ngroups": 1, "num_hidden_layers": 4,
               "attention_hidden_size": 32, "attention_head_dim": 16},
    "bailing_hybrid": {"layer_group_size": 2, "num_expert_group": 1},
    "gemma3n_text": {"num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"],
                     "activation_sparsity_pattern": [0.0, 0.0], "laurel_rank": 4, "altup_num_inputs": 2},
    "mimo_v2_flash": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}, "num_key_value_heads": 1},
    "kimi_linear": {"linear_head_dim": 8, "linear_num_heads": 2},
    "hrm_text": {"num_layers_per_stack": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},  # its cache asks for a layer of attention
    **{key: {"layer_types": ["linear_attention", "full_attention"]}  # so does theirs
       for key in ("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next")},
    "qwen4_exp_text": {"layer_types": ["linear_attention", "indexed_attention"], "indexer_n_heads": 2,
                       "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 16, "indexer_compress_ratio": 2},
    "mamba2": {"expand": 1, "n_groups": 1},
    "dbrx": {"ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
             "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}, "max_seq_len": 64},
    "mpt": {"max_seq_len": 64, "expansion_ratio": 2},
    "fsmt": {"langs": ["en", "de"], "src_vocab_size": ROWS, "tgt_vocab_size": ROWS},
}  # fmt: skip

#: Decoders whose config must name a padding token.
PADDED = ("modernbert-decoder",)
SOURCES = modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
MASKED = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
#: How tokenizers frame a text and a pair.
FRAMES = {
    "encoder": ("<s> $A </s>", "<s> $A </s> $B:1 </s>:1"),
    "roberta": ("<s> $A </s>", "<s> $A </s> </s> $B:1 </s>:1"),
    "seq2seq": ("$A </s>", "$A </s> $B:1 </s>:1"),
    "decoder": ("$A", "$A $B:1"),
}


@dataclass(frozen=True)
class Case:
    """A kind with a task, and what is unusual about the checkpoint.

    `layers`: kept ones, None for all. `config` is set beside the sizes; `edit` changes the folder afterwards. `pad`:
    whether tokenizer and config name a padding token, None for what is usual. `headed`: with a head of the task, not
    that of its pretraining. `shard`: the most bytes of a file of weights.
    """

    kind: str
    task: str
    layers: int | None = None
    config: Mapping[str, Any] | None = None
    edit: Callable[[Path], Any] | None = None
    pad: bool | None = None
    headed: bool = False
    shard: str = "1GB"
    dtype: torch.dtype = torch.float32


def frame_of(kind: str) -> str:
    """Which of FRAMES the tokenizers of a kind use."""
    if kind in SOURCES:
        return "seq2seq"
    if kind == "longformer":
        return "roberta"
    writes = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MASKED
    return "decoder" if writes else "encoder"


def tiny_config(kind: str, **more: Any) -> Any:
    """The config of a kind at the sizes above, wherever it has such a key."""
    settings = _shrunk(transformers.AutoConfig.for_model(kind)) | OWN.get(kind, {}) | more
    settings.pop("model_type", None)
    return transformers.AutoConfig.for_model(kind, **settings)


def _shrunk(config: Any) -> dict[str, Any]:
    known, left_open = config.to_dict(), ("head_dim", "num_key_value_heads", "n_inner")
    found: dict[str, Any] = {
        key: size
        for key, size in SIZES.items()
        if isinstance(known.get(key), int) or (key in left_open and key in known and known[key] is None)
    }
    ids = {"pad": PAD, "bos": BOS, "eos": EOS, "sep": EOS, "cls": BOS, "decoder_start": BOS, "forced_eos": EOS}
    found |= {f"{role}_token_id": number for role, number in ids.items() if f"{role}_token_id" in known}
    for key in getattr(config, "sub_configs", {}):
        part = getattr(config, key, None)
        if hasattr(part, "to_dict"):
            found[key] = {**_shrunk(part), "model_type": part.model_type}
    return found


def save_tokenizer(folder: Path, frame: str, pad: bool) -> None:
    """A tokenizer of WORDS between blanks."""
    words = [*SPECIAL, *(word for word in WORDS if word != ADDED)]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    single, pair = FRAMES[frame]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    if frame in ("encoder", "roberta"):
        roles |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    if pad:
        roles["pad_token"] = "<pad>"
    tokenizer.add_special_tokens([*roles.values()])
    tokenizer.add_tokens([ADDED])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **roles)
    fast.save_pretrained(folder)


#: transformers reads their tokenizers by a class of their own, whatever the tokenizer's files say.
READERS = {"qwen2": transformers.Qwen2Tokenizer} | dict.fromkeys(
    ("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "qwen4_exp"), transformers.Qwen3_5Tokenizer
)


def save_bytes_tokenizer(folder: Path, reader: Any, pad: bool) -> None:
    """A tokenizer of bytes and of the beginnings of WORDS, as this class of transformers has it."""
    pairs = [("c", "a"), ("ca", "t"), ("d", "o"), ("do", "g"), ("o", "w"), ("ow", "l"), ("Ġ", "w"),
             ("Ġ", "cat"), ("Ġ", "dog"), ("Ġ", "owl")]  # fmt: skip
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in pairs)]
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>" if pad else None}
    tokenizer = reader({token: number for number, token in enumerate(tokens)}, pairs, model_max_length=64, **roles)
    tokenizer.add_tokens([ADDED])
    tokenizer.save_pretrained(folder)


def save_checkpoint(case: Case, folder: Path) -> Path:
    """The checkpoint of a case, with the head of its pretraining where there is one."""
    frame = frame_of(case.kind)
    pad = frame != "decoder" or case.kind in PADDED if case.pad is None else case.pad
    more: dict[str, Any] = {} if pad else {"pad_token_id": None}
    if frame == "seq2seq":
        more["decoder_start_token_id"] = BOS
    config = tiny_config(case.kind, **{**more, **(case.config or {})})
    torch.manual_seed(0)
    if case.task in WRITERS or case.headed:
        head = HEADS[case.task]
    elif frame == "seq2seq":
        head = transformers.AutoModelForSeq2SeqLM
    elif frame == "decoder":
        head = transformers.AutoModelForCausalLM
    else:
        head = transformers.AutoModelForMaskedLM if case.kind in MASKED else transformers.AutoModel
    head.from_config(config, dtype=case.dtype).save_pretrained(folder, max_shard_size=case.shard)
    if case.kind in READERS:
        save_bytes_tokenizer(folder, READERS[case.kind], pad)
    else:
        save_tokenizer(folder, frame, pad)
    if case.edit:
        case.edit(folder)
    return folder


def rewrite(folder: Path, **changes: Any) -> None:
    """Set keys of config.json, or take out those that are None."""
    path = folder / "config.json"
    written = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in written.items() if value is not None}))
