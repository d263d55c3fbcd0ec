"""Augmentation beside its peers: rows a second and quality.

    pip install --target RIVAL --no-deps nlpaug nltk
    pip install --target RIVAL --no-deps lemminflect   # for a second opinion on forms
    python benchmarks/augmentation.py synonyms TEXTS.tsv --rival RIVAL [--tagger TAGGER]
    python benchmarks/augmentation.py models

`synonyms`: this package's synonyms and nlpaug's SynonymAug, both from the same WordNet files, in one process, in turn
(A B B A), over the same texts and the same share of words. nlpaug asks NLTK for parts of speech, whose model is a
download: TAGGER is a folder with averaged_perceptron_tagger_eng.{weights,tagdict,classes}.json; without one it gets a
stub that tags by WordNet's most frequent part of speech, which is cheaper than the real tagger. Quality is judged for
both alike: a replacement is `valid` where WordNet lists the new word in a synset of the old one, as a part of speech
that the old spelling may have, in the very same form (plural, past ...), and in the same case. That uses this package's
own forms; `valid_in_context` asks others: part of speech and form are those that NLTK's tagger gives the old word in
its sentence (nlpaug's own source), and lemminflect says whether the new word has that form (needs TAGGER, lemminflect).

`models`: back-translation and contextual substitution through the preparation of a study, on checkpoints made on the
spot (tests/nn/made_checkpoints.py), batched by length against one row at a time. Both verbs count seconds of CPU, as
other work on the machine would decide the comparison else: set OMP_NUM_THREADS=1, since threads that wait count, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SHARE = 0.15
ROUNDS = 2  # of A B B A
#: The files of lexnames(5WN), which Debian leaves out and NLTK wants, in their order.
LEXNAMES = """
adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition
noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person
noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state noun.substance
noun.time verb.body verb.change verb.cognition verb.communication verb.competition verb.consumption verb.contact
verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social verb.stative verb.weather adj.ppl
"""


def read_texts(path: Path, count: int) -> list[str]:
    """The first column of a table, as many different rows as asked."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", quoting=csv.QUOTE_NONE)
        return list(dict.fromkeys(row[0] for row in rows if row and row[0].strip()))[:count]


def lay_out_nltk(folder: Path, wordnet: Path, tagger: Path | None) -> None:
    """A data folder of NLTK: WordNet's own files and the tagger's, as NLTK wants them."""
    corpus = folder / "corpora" / "wordnet"
    corpus.mkdir(parents=True)
    for file in wordnet.iterdir():
        if file.is_file():
            shutil.copyfile(file, corpus / file.name)
    kinds = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
    lines = [f"{place:02d}\t{name}\t{kinds[name.split('.')[0]]}" for place, name in enumerate(LEXNAMES.split())]
    (corpus / "lexnames").write_text("\n".join(lines) + "\n")
    if tagger is not None:
        shutil.copytree(tagger, folder / "taggers" / "averaged_perceptron_tagger_eng")


def stub_tagger() -> Callable[[list[str]], list[tuple[str, str]]]:
    """Words to Penn tags by WordNet's most frequent part of speech."""
    from rayscale.text.augment.wordnet import WordNet, find_wordnet

    net, tags = WordNet(find_wordnet()), {"noun": "NN", "verb": "VB", "adj": "JJ", "adv": "RB"}

    def tag(words: list[str]) -> list[tuple[str, str]]:
        return [(word, tags[max(tags, key=lambda part: net.count(word.lower(), part))]) for word in words]

    return tag


def open_rival(rival: Path, tagger: Path | None) -> Callable[[Sequence[str]], list[str]]:
    """nlpaug's synonym augmenter."""
    from rayscale.text.augment.wordnet import find_wordnet

    data = Path(tempfile.mkdtemp(prefix="nltk-data-"))
    lay_out_nltk(data, find_wordnet(), tagger)
    os.environ["NLTK_DATA"] = str(data)
    sys.path.insert(0, str(rival))
    sys.modules.setdefault("gdown", types.ModuleType("gdown"))  # nlpaug downloads with it, which nothing here does
    import nltk
    from nltk.corpus.reader import wordnet as reader

    nltk.data.path[:] = [str(data)]
    # Maps between versions of WordNet serve other languages, and need index.sense, which Debian leaves out.
    reader.WordNetCorpusReader.map_wn = lambda self, version="wordnet": None
    from nltk.corpus import LazyCorpusLoader

    net = LazyCorpusLoader("wordnet", reader.WordNetCorpusReader, None)
    nltk.corpus.wordnet = net
    import nlpaug.augmenter.word as naw
    import nlpaug.model.word_dict.wordnet as theirs

    theirs.wordnet = net
    if tagger is None:
        theirs.nltk.pos_tag = stub_tagger()
    augmenter = naw.SynonymAug(aug_src="wordnet", aug_p=SHARE, aug_max=None)
    random.seed(0)
    return lambda texts: [str((augmenter.augment(text) or [text])[0]) for text in texts]


def open_ours() -> Callable[[Sequence[str]], list[str]]:
    """This package's synonyms."""
    from rayscale.study.augmenters import Example
    from rayscale.text.augment.seeded_random import Draws
    from rayscale.text.augment.synonyms import SYNONYMS, SynonymSettings

    step, draws = SYNONYMS.make(SYNONYMS.locate(SynonymSettings(share=SHARE))), Draws(0)
    return lambda texts: [row.text for row in step([Example(text, draws.below(2**32)) for text in texts])]


class Judge:
    """Whether a word may stand for another: by WordNet's synsets, parts of speech and forms, the same for both."""

    def __init__(self, in_context: bool) -> None:
        from rayscale.text.augment.inflection import Inflector
        from rayscale.text.augment.wordnet import WordNet, find_wordnet

        self._net = WordNet(find_wordnet())
        self._inflector = Inflector(self._net)
        self._tag: Any = None
        if in_context:
            import lemminflect
            from nltk.tag.perceptron import PerceptronTagger

            self._forms, self._tag = lemminflect, PerceptronTagger().tag

    def fits(self, old: str, tag: str, new: str) -> bool:
        """The new word is a synonym of the old one as the tag's part of speech, in the tag's form."""
        named = {"N": ("noun", "NOUN"), "V": ("verb", "VERB"), "J": ("adj", "ADJ"), "R": ("adv", "ADV")}.get(tag[0])
        if named is None:
            return False
        part, universal = named
        for word in {old.lower(), *self._forms.getLemma(old.lower(), upos=universal)}:
            for sense in self._net.senses(word, part):
                for other in sense.words:
                    forms = (other.lower(), *self._forms.getInflection(other.lower(), tag=tag))
                    plain = tag in ("NN", "VB", "VBP", "JJ", "RB")
                    if new.lower() in (forms if plain else forms[1:]):
                        return True
        return False

    def is_valid(self, old: str, new: str) -> bool:
        """The new word is a synonym of some reading of the old one, in the same form and case."""
        if " " in new or old[0].isupper() != new[0].isupper():
            return False
        theirs = self._inflector.readings(new.lower())
        for mine in self._inflector.readings(old.lower()):
            words = {word.lower() for sense in self._net.senses(mine.word, mine.part) for word in sense.words}
            if any((each.part, each.form) == (mine.part, mine.form) and each.word in words for each in theirs):
                return True
        return False

    def judge(self, texts: Sequence[str], made: Sequence[str]) -> dict[str, Any]:
        """Shares of words replaced, of replacements that are valid, and of texts that changed."""
        from difflib import SequenceMatcher

        from rayscale.text.augment.synonyms import TOKEN

        words = replaced = valid = changed = fitting = 0
        for text, child in zip(texts, made, strict=True):
            old, new = TOKEN.findall(text), TOKEN.findall(child.replace("_", " "))
            words += sum(word[0].isalpha() for word in old)
            changed += old != new
            tags = [tag for _, tag in self._tag(old)] if self._tag and old else []
            for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
                if kind == "equal":
                    continue
                pairs = (
                    list(zip(old[a:b], new[c:d], strict=False))
                    if b - a == d - c
                    else [(" ".join(old[a:b]) or "-", " ".join(new[c:d]) or "-")]
                )
                for place, (one, other) in enumerate(pairs, start=a):
                    if {one.lower(), other.lower()} == {"a", "an"}:
                        continue  # an article that followed its noun
                    replaced += 1
                    single = one.isalpha() and other.isalpha()
                    valid += single and self.is_valid(one, other)
                    fitting += bool(single and tags and self.fits(one, tags[place], other))
        found = {"words_replaced": round(replaced / words, 4), "valid": round(valid / max(1, replaced), 4),
                 "texts_changed": round(changed / len(texts), 4)}  # fmt: skip
        return found | ({"valid_in_context": round(fitting / max(1, replaced), 4)} if self._tag else {})


def compare_synonyms(texts: Sequence[str], rival: Path, tagger: Path | None) -> dict[str, Any]:
    """Rows a second, interleaved, after one untimed pass each; and the quality of the last pass."""
    made, sides = {}, {"rayscale": open_ours(), "nlpaug": open_rival(rival, tagger)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for name in ("rayscale", "nlpaug", *("rayscale", "nlpaug", "nlpaug", "rayscale") * ROUNDS):
        began = time.process_time()
        made[name] = sides[name](texts)
        seconds[name].append(time.process_time() - began)
    judge = Judge(tagger is not None and (rival / "lemminflect").is_dir())
    found: dict[str, Any] = {
        name: {"rows_per_cpu_second": round(len(texts) / statistics.median(taken[1:])),
               "first_pass": round(len(texts) / taken[0]), **judge.judge(texts, made[name])}
        for name, taken in seconds.items()
    }  # fmt: skip
    ratio = found["rayscale"]["rows_per_cpu_second"] / found["nlpaug"]["rows_per_cpu_second"]
    return {
        "texts": len(texts),
        "tagger": "averaged perceptron" if tagger else "stub",
        **found,
        "times": round(ratio, 2),
    }


def compare_models(count: int) -> dict[str, Any]:
    """Back-translation and contextual substitution in the preparation of a study, batched and row by row."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "nn"))
    from made_checkpoints import make_marian, make_masked, sentences

    from rayscale.nn.augment import batches as nn_rows
    from rayscale.study.study import Data, Grid, Ladder, Study, Task
    from rayscale.text.augment import children
    from rayscale.text.preparation import Here, prepare
    from rayscale.text.tokens.encode import TokenizerSpec

    folder = Path(tempfile.mkdtemp(prefix="augmentation-"))
    there, back = make_marian(folder / "en-de", "en", "de"), make_marian(folder / "de-en", "de", "en")
    masked = make_masked(folder / "masked")
    texts = sorted(set(sentences(2 * count, longest=12)))[:count]
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{t},{i % 2}\n" for i, t in enumerate(texts)))
    steps = {"back_translation": {"there": str(there), "back": str(back)}, "contextual": {"model": str(masked)}}
    found = {}
    batches = dict(nn_rows.BATCH_TOKENS)
    for name, settings in steps.items():
        speeds: dict[str, list[float]] = {"batched": [], "one_by_one": []}
        for turn, side in enumerate(("batched", "one_by_one", "one_by_one", "batched")):
            os.environ["RAYSCALE_CACHE"] = str(folder / f"cache-{name}-{turn}")
            nn_rows.BATCH_TOKENS.update(batches if side == "batched" else dict.fromkeys(batches, 1))
            study = Study(name="b", task=Task(type="sequence-classification"),
                          data=Data(train=str(folder / "rows.csv"), augment=({"name": "x", name: settings},)),
                          models=(Ladder(family="bert", sizes=("1x64",)),), grid=Grid(examples=(10,)))  # fmt: skip
            spent: list[float] = []
            real = children._make

            def timed(*given: Any, spent: list[float] = spent, real: Any = real) -> Any:
                began = time.process_time()
                made = real(*given)
                spent.append(time.process_time() - began)
                return made

            children._make = timed
            try:
                made = prepare(study, [TokenizerSpec("trained", "bert", 400)], [0], Here())["bert-400+x"]
            finally:
                children._make = real
            speeds[side].append(made.manifest["augmentation"]["rows"]["made"] / spent[0])
        nn_rows.BATCH_TOKENS.update(batches)
        median = {side: statistics.median(each) for side, each in speeds.items()}
        rows = made.manifest["augmentation"]["rows"]
        found[name] = {**{f"{side}_rows_per_cpu_second": round(each) for side, each in median.items()},
                       "times": round(median["batched"] / median["one_by_one"], 1), "rows": rows}  # fmt: skip
    shutil.rmtree(folder)
    return found


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    words = verbs.add_parser("synonyms")
    words.add_argument("texts", type=Path)
    words.add_argument("--rival", type=Path, required=True)
    words.add_argument("--tagger", type=Path)
    words.add_argument("--rows", type=int, default=2000)
    models = verbs.add_parser("models")
    models.add_argument("--rows", type=int, default=600)
    given = parser.parse_args()
    if given.verb == "synonyms":
        told = compare_synonyms(read_texts(given.texts, given.rows), given.rival, given.tagger)
    else:
        told = compare_models(given.rows)
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
