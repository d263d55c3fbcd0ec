"""From files to tokens: clean rows, splits, augmented copies, and what is wrong with the text.

`sources` reads files, `rows` makes them clean and finds duplicates, `tokens` makes token ids, `augment` makes copies,
`review` reports what a person should know of the text, `tasks` say what a row is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayscale.system.lazy import lazy

if TYPE_CHECKING:
    from rayscale.text.preparation import prepare
    from rayscale.text.prepared import Prepared
    from rayscale.text.review.survey import survey
    from rayscale.text.workers import Workers

__all__ = ["Prepared", "Workers", "prepare", "survey"]

__getattr__ = lazy(__name__, Prepared="prepared", Workers="workers", prepare="preparation", survey="review.survey")
