"""WordPiece in BERT's way, trained byte for byte alike in every process, for texts of any script.

An English text gets what BERT has: lower case, no accents, words at spaces and punctuation, each Han character apart.
Other scripts cannot spare their marks (they are vowels in Thai and Hindi). Where words are written without spaces the
pieces are learnt from whole runs of letters: a small model learns less by characters (0.4 against 0.9 on made Thai).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rayscale.errors import DataError
from rayscale.text.scripts import UNSPACED, in_ranges, shares_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer, normalizers, pre_tokenizers

ROLES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}

#: Share of a text's characters that the alphabet covers where there is room (SentencePiece's `character_coverage`).
COVERED = 0.9995
#: Share of the letters from which on a script decides how a text is read: names and quotations do not.
MATTERS = 0.01
#: Scripts whose letters are read without their marks, as BERT reads them; Han has none.
_SPARE_MARKS = ("latin", "greek", "cyrillic", "han")
#: A run of letters that is looked up as one word: WordPiece knows no word of more than 100.
_LONGEST = "{1,64}"


def train(texts: Sequence[list[str]], size: int) -> Tokenizer:
    """A tokenizer of at most `size` entries. Raises DataError: `size` cannot hold the commonest characters."""
    from tokenizers import Tokenizer, decoders, models, processors, trainers

    letters: Counter[str] = Counter()
    for batch in texts:
        letters.update("\n".join(batch))
    normalizer, pre_tokenizer = _reading(letters)
    specials = list(ROLES.values())
    counts: Counter[str] = Counter()
    for batch in texts:
        counts.update(normalizer.normalize_str("\n".join(batch)))
    counts = Counter({letter: number for letter, number in counts.items() if not letter.isspace()})
    # The trainer numbers continuation pieces ("##a") in the order of a hash map, which differs between runs and then
    # decides ties between merges (huggingface/tokenizers#1794). Given as special tokens, they have fixed numbers.
    entries = {letter: 1 if _stands_alone(letter, normalizer, pre_tokenizer) else 2 for letter in counts}
    alphabet = _alphabet(counts, entries, max(100, size // 16), size - len(specials))
    pieces = [f"##{letter}" for letter in alphabet if entries[letter] == 2]
    if (least := len(specials) + len(alphabet) + len(pieces)) > size:
        text = f"a vocabulary of {size} cannot hold the {len(alphabet)} characters of this text"
        raise DataError(f"{text}; ask for {least} or more", code="small_vocabulary")
    tokenizer = Tokenizer(models.WordPiece(unk_token=ROLES["unk_token"]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=specials + pieces,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Built anew from the vocabulary, so that the pieces are no special tokens any more.
    final = Tokenizer(models.WordPiece(tokenizer.get_vocab(), unk_token=ROLES["unk_token"]))
    final.normalizer, final.pre_tokenizer = normalizer, pre_tokenizer
    final.decoder = decoders.WordPiece()
    final.add_special_tokens(specials)
    cls, sep = ((ROLES[f"{role}_token"], final.token_to_id(ROLES[f"{role}_token"])) for role in ("cls", "sep"))
    final.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[cls, sep]
    )
    return final


def entries_for(letters: Counter[str]) -> int:
    """Entries that hold the special tokens and an alphabet that covers a text of these characters."""
    normalizer, pre_tokenizer = _reading(letters)
    counts: Counter[str] = Counter()
    for letter, number in letters.items():
        for kept in normalizer.normalize_str(letter):
            if not kept.isspace():
                counts[kept] += number
    entries = {letter: 1 if _stands_alone(letter, normalizer, pre_tokenizer) else 2 for letter in counts}
    return len(ROLES) + sum(entries[letter] for letter in _alphabet(counts, entries, 100, sum(entries.values())))


def _reading(letters: Mapping[str, int]) -> tuple[normalizers.Normalizer, pre_tokenizers.PreTokenizer]:
    """How texts of these characters are brought to one form and cut in words."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    shares = shares_of(letters)
    bert: pre_tokenizers.PreTokenizer = pre_tokenizers.BertPreTokenizer()
    if sum(share for script, share in shares.items() if script not in _SPARE_MARKS) < MATTERS:
        return normalizers.BertNormalizer(lowercase=True), bert
    whole = [normalizers.NFC(), normalizers.BertNormalizer(lowercase=True, strip_accents=False)]
    runs = "|".join(pattern for script, pattern in _runs() if shares.get(script, 0.0) >= MATTERS)
    words = [pre_tokenizers.Split(Regex(runs), "isolated"), bert] if runs else [bert]
    return normalizers.Sequence(whole), pre_tokenizers.Sequence(words)


def _runs() -> Iterator[tuple[str, str]]:
    """Scripts whose letters stand in rows without spaces, and a pattern for such a row. A word ends where kana change.

    BERT sets each Han character apart.
    """
    for script in UNSPACED:
        if script == "kana":
            yield script, f"[\u3041-\u309f]{_LONGEST}|[\u30a1-\u30ff\u31f0-\u31ff\uff66-\uff9f]{_LONGEST}"
        elif script != "han":
            yield script, f"[{in_ranges(script)}]{_LONGEST}"


def _stands_alone(letter: str, normalizer: normalizers.Normalizer, pre_tokenizer: pre_tokenizers.PreTokenizer) -> bool:
    """Whether the character is always a word of its own, so that it continues none."""
    words = pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(f"a{letter}{letter}a"))
    return any(word == letter for word, _ in words)


def _alphabet(counts: Mapping[str, int], entries: Mapping[str, int], least: int, room: int) -> list[str]:
    """The `least` most frequent characters, and more of them, as far as there is room, until COVERED is reached."""
    chosen: list[str] = []
    missing, whole = sum(counts.values()), sum(counts.values())
    for letter in sorted(counts, key=lambda letter: (-counts[letter], letter)):
        room -= entries[letter]
        if len(chosen) >= least and (room < 0 or missing <= (1 - COVERED) * whole):
            break
        missing -= counts[letter]
        chosen.append(letter)
    return sorted(chosen)
