"""The scores of each class, of one trial."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from rayscale.report.numbers import fixed, plain, whole

#: Rows shown at most: a page is read by people.
_MOST = 300


@dataclass(frozen=True)
class ClassScores:
    """`table`: label, precision, recall, f1, support, average (whether the row is an average over classes)."""

    trial_id: str
    model: str
    data_requested: int
    table: pd.DataFrame

    @property
    def said(self) -> str:
        """Which trial it is, and what is left out."""
        left = int((~self.table["average"]).sum()) - _MOST
        more = f" {whole(left)} more are in classes/{self.trial_id}.parquet of the run folder." if left > 0 else ""
        return f"The best trial, {plain(self.model)} on {whole(self.data_requested)}, on the test set.{more}"

    @property
    def rows(self) -> list[tuple[str, str, str, str, str, bool]]:
        """Label, precision, recall, F1, support as text, and whether the row is an average; averages last."""
        classes, averages = self.table[~self.table["average"]], self.table[self.table["average"]]
        return [
            (plain(f"{row.label} average" if row.average else row.label), fixed(row.precision, 3), fixed(row.recall, 3),
             fixed(row.f1, 3), whole(row.support), bool(row.average))
            for row in pd.concat([classes.head(_MOST), averages]).itertuples()
        ]  # fmt: skip
