"""Children of spaced text are pinned: what other scripts need may change no child of it, and no id."""

from __future__ import annotations

import hashlib
import json

import pytest

from rayscale.study.augment_key import read
from rayscale.text.augment.chain import Chain, fingerprint
from rayscale.text.normalise import keys_of
from tests.unit.text.made_wordnet import write_wordnet

SUBJECTS = (
    "The film",
    "A big car",
    "An honest boy",
    "My café",
    "“The movie”",
    "Zoë's child",
    "The 3.5 films",
    "JEAN-LUC",
)
VERBS = ("began", "was shown", "didn't stop", "has picked", "showed", "is quickly begun by", "don't", "naïvely shows")
ENDS = (
    "there.",
    "to the boy, quickly!",
    "— and 20% more :-)",
    "(in 2024) 🙂.",
    "a film; a car/boy",
    "e.g. at http://a.b/c?d=1",
)
TEXTS = [f"{one} {two} {three}" for one in SUBJECTS for two in VERBS for three in ENDS] + [
    "one",
    "two words",
    "ℹ️ film ❤️ it",
]
TABLE = "word,synonym,part\nfilm,motion picture,noun\nbegan,started,\nboy,kid,n\nquickly,at once,\n"


def told(entry: dict) -> tuple[str, str]:
    """Digests of the children of two copies, and of what names the augmentation."""
    augmentation = read(entry).located()
    chain, keys = Chain(augmentation), keys_of(TEXTS)
    children = [[row.text for row in chain.rows(TEXTS, keys, copy)] for copy in (0, 1)]
    content = json.dumps(children, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16], fingerprint(augmentation)


@pytest.mark.parametrize(
    ("steps", "children", "mark"),
    [
        ({"swap": {"share": 0.3}}, "123345c6dcf114d7", "0d6312f41445cc49"),
        ({"delete": {}, "seed": 3}, "a72cfd59673080bc", "d1b93913ad613b57"),
        ({"synonyms": {"source": "wordnet", "share": 0.3}}, "45f74ec1831f576a", "9e46bb99d12c8f56"),
        ({"synonyms": {"source": "own.csv", "share": 1.0}}, "cd404dc41a2b575a", "19cdc706a3671b3a"),
        (
            {"synonyms": {"source": "wordnet"}, "swap": {}, "delete": {"share": 0.2}, "copies": 2},
            "ac985adb08ddcfde",
            "a66e50489e5a8643",
        ),
    ],
)
def test_no_child_and_no_id_of_spaced_text_changes(tmp_path, steps, children, mark):
    write_wordnet(tmp_path / "wordnet")
    (tmp_path / "own.csv").write_text(TABLE)
    entry = {"name": "x", **steps}
    if "synonyms" in entry:
        settings = entry["synonyms"]
        entry["synonyms"] = {**settings, "source": str(tmp_path / settings["source"])}
    assert told(entry) == (children, mark)
