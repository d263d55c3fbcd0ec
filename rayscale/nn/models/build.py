"""Models: ladders from scratch and pretrained checkpoints, cut to their first layers, with the head of the task."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from rayscale.errors import InputError, first_line
from rayscale.nn.loading import load
from rayscale.nn.models.lora import adapt
from rayscale.nn.models.objectives import find_objective
from rayscale.nn.models.size import body_parameters
from rayscale.plan import heads
from rayscale.plan.parameters import DEPTH_KEYS, LABELLED_BY_LAST_STATE, count, family_config
from rayscale.study.checkpoints import find_checkpoint
from rayscale.study.tasks import find_kind

if TYPE_CHECKING:
    from rayscale.runs.trial import ModelSpec


def build_model(
    spec: ModelSpec,
    task_type: str,
    *,
    labels: list[str],
    vocab_size: int,
    max_length: int,
    seed: int,
    token_ids: Mapping[str, int] | None = None,
    checkpoint: str | Path | None = None,
) -> PreTrainedModel:
    """The model of `spec` with the head of the task, float32, on the CPU, in training mode; `seed` draws new weights.

    A family is built from `parameters.family_config` with the vocabulary of `spec`; `vocab_size` is that of
    the tokenizer, `token_ids` its special tokens by role (pad, bos, eos), `max_length` the longest input in tokens. A
    pretrained model is read from `checkpoint` (a folder), or from `spec.path` (folder or hub id), safetensors only and
    no remote code, and cut to its first `spec.layers` layers: every weight of the kept body must be in the file, only
    the head of the task may be new. The pooler of BERT and its kin begins as tanh of the first state. With `spec.lora`
    the body is frozen, adapters stand beside its linear layers, and they and the new head learn.

    Raises InputError, naming the path and the fix: unknown task, a family or architecture that cannot do the task,
    more layers than there are, a body with missing weights, a tokenizer larger than the vocabulary, inputs longer than
    the positions, no safetensors, no network for a hub id.
    """
    find_kind(task_type)
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    keep: dict[str, Any] = {**(names if labels else {}), **find_objective(task_type).config}
    if spec.kind == "family":
        # Windows of causal-lm are full; a padding token would make GPT-2 look for it in every batch.
        roles = ("bos", "eos") if task_type == "causal-lm" else ("pad", "bos", "eos")
        keep |= {f"{role}_token_id": (token_ids or {}).get(role) for role in roles}
        if spec.family == "t5":
            keep["decoder_start_token_id"] = keep["pad_token_id"]
        return _from_scratch(spec, task_type, len(labels), vocab_size, max_length, seed, keep)
    return _from_checkpoint(spec, task_type, vocab_size, max_length, seed, keep, checkpoint, token_ids or {})


def _from_scratch(
    spec: ModelSpec, task_type: str, n_labels: int, vocab_size: int, max_length: int, seed: int, names: dict[str, Any]
) -> PreTrainedModel:
    if spec.family is None or spec.width is None:
        raise InputError(f"the model {spec.name} has no family or width", code="bad_model")
    vocabulary = spec.vocabulary or vocab_size
    if vocab_size > vocabulary:
        text = f"the tokenizer knows {vocab_size} tokens, {spec.name} has a vocabulary of {vocabulary}"
        raise InputError(f"{text}; prepare the data again", code="wrong_tokenizer")
    settings = family_config(spec.family, spec.layers, spec.width, vocabulary, max_length, n_labels)
    count(settings, task_type, n_labels)  # refuses a family that cannot do the task
    settings.pop("num_labels", None)  # the config class derives it from id2label
    settings |= names
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(seed)
    return find_objective(task_type).head.from_config(config, dtype=torch.float32, attn_implementation="sdpa").train()


def _from_checkpoint(
    spec: ModelSpec,
    task_type: str,
    vocab_size: int,
    max_length: int,
    seed: int,
    names: dict[str, Any],
    checkpoint: str | Path | None,
    token_ids: Mapping[str, int],
) -> PreTrainedModel:
    source = str(checkpoint or spec.path)
    # A lane is given a folder that the driver has checked; hashing its weights again would cost every trial seconds.
    folder = Path(checkpoint) if checkpoint else find_checkpoint(source, spec.revision).folder
    try:
        plain = {"trust_remote_code": False, "local_files_only": True}
        # A folder of this machine, whose digest is in the trial's id: nothing is downloaded that a revision could pin.
        config = transformers.AutoConfig.from_pretrained(folder, **plain)  # nosec B615
    except (ValueError, OSError, KeyError) as error:
        text = f"transformers {transformers.__version__} cannot read config.json: {first_line(error)}"
        fix = "give a checkpoint of an architecture that transformers itself contains"
        raise InputError(f"{folder}: {text}", fix=fix, code="bad_checkpoint") from error
    _check_fit(source, config, task_type, spec.layers, vocab_size, max_length)
    for key, value in names.items():
        setattr(config, key, value)
    _cut(source, config, spec.layers)
    config.use_cache = False
    if find_kind(task_type).labels_texts:
        config.pad_token_id = heads.padding_of(lambda key: getattr(config, key, None), token_ids)
        if config.pad_token_id is None and config.model_type in LABELLED_BY_LAST_STATE:
            raise heads.no_padding(source)  # they find the last token of a padded row by it
    torch.manual_seed(seed)
    # transformers would report unused weights, of cut layers and heads of other tasks. What matters is checked below.
    model, info = load(
        find_objective(task_type).head.from_pretrained, folder, config=config, dtype=torch.float32,
        use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True,
    )  # fmt: skip
    new = {*map(str, info.get("missing_keys", ())), *(str(key[0]) for key in info.get("mismatched_keys", ()))}
    _check_body(source, model, new)
    model.begins_with_stored_head = not find_kind(task_type).writes and _has_stored_head(model, new)
    open_pooler(model)
    if spec.lora is not None:
        adapt(model, spec.lora, seed, _head(model, new))
    return model.train()


def draw_again(model: PreTrainedModel, seed: int) -> None:
    """Draw the new weights of a model that `build_model` has read from a checkpoint, as for this seed; on the CPU."""
    for module in model.modules():
        module.__dict__.pop("_is_hf_initialized", None)  # weights of the checkpoint bear such a mark of their own
    torch.manual_seed(seed)
    model.initialize_weights()
    open_pooler(model)


#: Keys of configs that hold a value for each layer, besides those that say so.
_BY_LAYER = ("attention_window", "activation_sparsity_pattern")


def _cut(source: str, config: transformers.PretrainedConfig, layers: int) -> None:
    try:
        depth, known = _key(config, DEPTH_KEYS, source), config.to_dict()
        if getattr(config, depth) > layers:
            setattr(config, depth, layers)
        for key in ("num_decoder_layers", "decoder_layers"):  # of T5, and of BART and its kin
            if (getattr(config, key, None) or 0) > layers:
                setattr(config, key, layers)
        for key in (key for key in known if "layer" in key or key in _BY_LAYER):
            given = getattr(config, key, None)
            if isinstance(given, (list, tuple)) and len(given) > layers:
                setattr(config, key, given[:layers])
    except (NotImplementedError, AttributeError) as error:  # a config that works them out of something else
        text = f"{source} is a '{config.model_type}' checkpoint, which cannot be sized by its layers ({error})"
        raise InputError(f"{text}; give one of another architecture", code="wrong_architecture") from error


def open_pooler(model: PreTrainedModel) -> None:
    """Lets the pooler of BERT and its kin begin as tanh of the first state.

    Its stored weights belong to another task and to the last layer of the whole model: below a cut, and in encoders
    trained with mean pooling, they only mix up what the body knows (docs/LOG.md; Zhang et al. 2021, arXiv 2006.05987).
    """
    dense = getattr(getattr(model.base_model, "pooler", None), "dense", None)
    if isinstance(dense, nn.Linear) and dense.in_features == dense.out_features:
        nn.init.eye_(dense.weight)
        nn.init.zeros_(dense.bias)


def _check_fit(
    source: str, config: transformers.PretrainedConfig, task_type: str, layers: int, vocab_size: int, max_length: int
) -> None:
    heads.check_head(source, config.to_dict(), task_type)
    depth = getattr(config, _key(config, DEPTH_KEYS, source))
    if not 1 <= layers <= depth:
        text = f"{source} has {depth} layers, {layers} were asked for; ask for 1 to {depth}"
        raise InputError(text, code="too_many_layers")
    if vocab_size > getattr(config, "vocab_size", vocab_size):  # of CANINE, which reads characters, there is none
        text = f"the tokenizer knows {vocab_size} tokens, {source} only {config.vocab_size}"
        raise InputError(f"{text}; use the tokenizer of the checkpoint", code="wrong_tokenizer")
    positions = heads.positions_of(lambda key: getattr(config, key, None))
    if positions and max_length > positions:
        raise heads.too_long(source, max_length, positions)


def _head(model: PreTrainedModel, new: Collection[str]) -> list[nn.Parameter]:
    """What belongs to the task. That with which a language model writes does only where it is `new` (names)."""
    body, output = body_parameters(model), model.get_output_embeddings()
    writing = {id(parameter) for parameter in output.parameters()} if output is not None else set()
    return [p for name, p in model.named_parameters() if id(p) not in body and (id(p) not in writing or name in new)]


def _has_stored_head(model: PreTrainedModel, new: Collection[str]) -> bool:
    """Whether the head of the task, a pooler aside, came with the checkpoint."""
    body = body_parameters(model)
    names = [name for name, p in model.named_parameters() if id(p) not in body and "pooler." not in name]
    return bool(names) and not any(name in new for name in names)


def _check_body(source: str, model: PreTrainedModel, new: Iterable[str]) -> None:
    """Nothing of the kept body may be new; a pooler counts as head: models without one get it with the task."""
    prefix = "" if model.base_model is model else model.base_model_prefix + "."
    body = (key for key in new if key.startswith(prefix) and ".pooler." not in key)
    if lost := sorted(key for key in body if not key.endswith(".position_ids")):
        text = f"{source} lacks {len(lost)} weights of the body that is to be kept, such as {lost[0]}"
        raise InputError(f"{text}; give a complete checkpoint of this architecture", code="incomplete_checkpoint")


def _key(config: transformers.PretrainedConfig, keys: tuple[str, ...], source: str) -> str:
    mapped, written = [config.attribute_map[key] for key in keys if key in config.attribute_map], config.to_dict()
    # By names that are not written to config.json a config may tell what it works out of others.
    for key in (*mapped, *(key for key in keys if key in written), *keys):
        if isinstance(getattr(config, key, None), int):
            return key
    text = f"the config of {source} ('{config.model_type}') has none of {', '.join(keys)}"
    raise InputError(f"{text}; this architecture cannot be sized", code="wrong_architecture")


def padding_token(model: PreTrainedModel) -> int:
    """The token that fills padded batches; where the model names none, any serves: it is masked."""
    given = getattr(model.config, "pad_token_id", None)
    return given if isinstance(given, int) and given >= 0 else 0
