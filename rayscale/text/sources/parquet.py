"""Reading parquet files, which may be damaged, packed beyond measure, or made to run code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rayscale.errors import DataError
from rayscale.text.sources.opening import MAX_ROW, short
from rayscale.text.sources.readers import check_names
from rayscale.text.sources.row import BadRow, Row

#: Bytes of a row group, by its own account, up to which its texts are read as dictionaries.
MAX_PACKED = 1 << 26
#: What pyarrow raises for bytes that are no sound parquet.
_DAMAGE = (pa.ArrowException, OSError, MemoryError, UnicodeError, OverflowError)


def read_parquet(path: str, columns: Sequence[str]) -> Iterator[Row | BadRow]:
    """The rows of a parquet file, read in batches. A damaged file is a DataError.

    A column of an extension type is refused unread, since some of Ray's are pickles.
    """
    row = 0
    try:
        with pq.ParquetFile(path) as opened:
            _check_columns(path, columns, opened.schema_arrow)
        for part in _batches(path, list(dict.fromkeys(columns)), 4096):
            for values in zip(*(part.column(name).to_pylist() for name in columns), strict=True):
                row += 1
                yield Row(row, values)
    except _DAMAGE as error:
        text = f"damaged, or not a parquet file ({short(error)}); write it again from its source"
        raise DataError(text, code="damaged_file", where=f"{path}: row {row + 1}") from error


def plain_columns(path: str) -> list[str]:
    """Names of the columns that hold plain values, each once. Raises what pyarrow raises for a damaged file."""
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        return [name for name in schema.names if schema.names.count(name) == 1 and _is_plain(schema.field(name).type)]


def first_rows(path: str, columns: Sequence[str], number: int) -> list[dict[str, Any]]:
    """So many rows at most, of columns that are plain. Raises what pyarrow raises for a damaged file."""
    kept: list[dict[str, Any]] = []
    for part in _batches(path, columns, number):
        kept += part.to_pylist()[: number - len(kept)]
        if len(kept) == number or part.nbytes > MAX_ROW:
            break
    return kept


def _batches(path: str, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of so many rows at most, fewer where their texts are long."""
    with pq.ParquetFile(path) as opened:
        texts = [name for name in columns if _is_text(opened.schema_arrow.field(name).type)]
    for group in range(opened.num_row_groups):
        about = opened.metadata.row_group(group)
        # In a small group one long text may come a million times: as a dictionary it is there once. A large group is
        # read as it is, since a dictionary would keep all of its texts until its end.
        packed = texts if about.total_byte_size <= MAX_PACKED else None
        with pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=packed) as file:
            size = min(rows, _rows_at_once(about))
            for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=list(columns)):
                batch.validate(full=True)
                for part in _parts(batch):
                    columns_of = [c.dictionary_decode() if hasattr(c, "dictionary_decode") else c for c in part.columns]
                    yield pa.record_batch(columns_of, part.schema.names)


def _rows_at_once(about: Any) -> int:
    """Rows of a row group that take some tens of megabytes unpacked, by what the file says of the whole group.

    Single columns are not asked: in pyarrow 26 damage there ends the process.
    """
    most = 4096 if about.total_byte_size <= MAX_PACKED else 256  # in a large group sizes may differ much
    return max(1, min(most, MAX_ROW * about.num_rows // max(1, about.total_byte_size)))


def _check_columns(path: str, columns: Sequence[str], schema: Any) -> None:
    check_names(path, 1, columns, schema.names)
    for column in columns:
        kind = schema.field(column).type
        if not _is_plain(kind):
            shown = getattr(kind, "extension_name", None) or short(kind)
            raise DataError(f"column '{column}' is of type {shown}; write it as plain strings or numbers",
                            code="wrong_type", where=f"{path}:1: {column}")  # fmt: skip


def _is_plain(kind: Any) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):  # of plain values: tokens, labels
        kind = kind.value_type
    if pa.types.is_struct(kind):  # of such: the answers to a question
        return all(_is_plain(field.type) for field in kind)
    return not isinstance(kind, pa.BaseExtensionType) and not pa.types.is_nested(kind)


def _is_text(kind: Any) -> bool:
    return any(of(kind) for of in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _parts(batch: Any) -> Iterator[Any]:
    """The batch in parts whose texts, unpacked, take some tens of megabytes at most, or one row."""
    packed = [c for c in batch.columns if hasattr(c, "dictionary") and _is_text(c.type.value_type)]
    sizes = [pc.sum(pc.take(pc.binary_length(c.dictionary), c.indices)).as_py() or 0 for c in packed]
    if sum(sizes) <= MAX_ROW or len(batch) == 1:
        yield batch
        return
    half = len(batch) // 2
    yield from _parts(batch.slice(0, half))
    yield from _parts(batch.slice(half))
