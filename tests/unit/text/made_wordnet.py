"""A WordNet of a few words, in the files of the real one."""

from __future__ import annotations

from pathlib import Path

#: (part, words each with how often it was met in this sense, labels of usage, gloss); senses in the order of frequency.
SYNSETS = [
    ("noun", {"film": 20, "movie": 22}, (), "a form of entertainment"),
    ("noun", {"film": 2}, (), "a thin coating"),
    ("noun", {"car": 70, "automobile": 5, "motorcar": 0}, (), "a motor vehicle"),
    ("noun", {"boy": 30, "lad": 3}, (), "a youthful male"),
    ("noun", {"boy": 0, "scamp": 1}, ("06717170",), "offensive term"),
    ("noun", {"child": 50, "kid": 8}, (), "a young person"),
    ("noun", {"apple_pie": 1, "dessert": 3}, (), "a dish"),
    ("verb", {"begin": 60, "start": 40}, (), "take the first step"),
    ("verb", {"stop": 30, "halt": 6}, (), "come to a halt"),
    ("verb", {"film": 4, "shoot": 1}, (), "make a film"),
    ("verb", {"pick": 30, "choose": 30}, (), "select"),
    ("verb", {"show": 30, "demonstrate": 10}, (), "give evidence"),
    ("verb", {"saw": 1}, (), "cut with a saw"),
    ("verb", {"see": 90}, (), "perceive"),
    ("noun", {"start": 5, "beginning": 7}, (), "the time at which something begins"),
    ("adj", {"big": 50, "large": 40}, (), "above average in size"),
    ("adj", {"funny": 9, "amusing": 4}, (), "arousing laughter"),
    ("adj", {"honest": 9, "sincere": 7}, (), "not deceiving"),
    ("adv", {"quickly": 20, "rapidly": 10}, (), "with speed"),
]
EXCEPTIONS = {
    "noun": "children child\n",
    "verb": "began begin\nbegun begin\nbeginning begin\nstopped stop\nstopping stop\nchose choose\nchosen choose\n"
    "shot shoot\nshown show\nsaw see\nseen see\n",
    "adj": "bigger big\nbiggest big\nfunnier funny\nfunniest funny\n",
    "adv": "",
}
_TYPES = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_NUMBERS = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
_LICENCE = "  1 This text stands where the licence does.  \n"


def write_wordnet(folder: Path) -> Path:
    """The folder, filled."""
    folder.mkdir(parents=True, exist_ok=True)
    tagged = []
    for part, letter in _TYPES.items():
        data, senses = _LICENCE, {}
        for kind, words, labels, gloss in SYNSETS:
            if kind != part:
                continue
            offset = f"{len(data.encode()):08d}"
            listed = " ".join(f"{word} 0" for word in words)
            pointers = "".join(f" ;u {label} n 0000" for label in labels)
            data += f"{offset} 03 {letter} {len(words):02x} {listed} {len(labels):03d}{pointers} | {gloss}  \n"
            for word, count in words.items():
                senses.setdefault(word, []).append(offset)
                tagged.append(f"{word}%{_NUMBERS[part]}:03:00:: {len(senses[word])} {count}\n")
        (folder / f"data.{part}").write_text(data)
        lines = [f"{word} {letter} {len(found)} 0 {len(found)} 0 {' '.join(found)}  \n"
                 for word, found in sorted(senses.items())]  # fmt: skip
        (folder / f"index.{part}").write_text(_LICENCE + "".join(lines))
        (folder / f"{part}.exc").write_text(EXCEPTIONS[part])
    (folder / "cntlist.rev").write_text("".join(sorted(line for line in tagged if not line.endswith(" 0\n"))))
    return folder
