"""Tables in Apache Arrow's file formats: feather (Argoverse 2) and parquet (Waymo), through pyarrow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparse3d.errors import DataError, require_extra


def read_feather(path: str | Path, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a feather file as arrays of equal length; text as numpy text, lists as (N, length).

    DataError for a file that is missing or damaged, and for columns that are not there or have gaps.
    MissingExtraError without pyarrow.
    """
    feather, arrow = require_extra("pyarrow.feather", "datasets"), require_extra("pyarrow", "datasets")
    try:
        table = feather.read_table(path)
    except FileNotFoundError as error:
        raise DataError(path, "no such file") from error
    except (arrow.ArrowException, OSError) as error:
        raise DataError(path, f"not a whole feather file: {error}") from error
    return as_arrays(path, table, columns)


def as_arrays(
    path: str | Path, table: Any, columns: Sequence[str], with_gaps: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Columns of an Arrow table as arrays; those of `with_gaps` as float64 with NaN in the gaps. DataError as
    in `read_feather`."""
    lacking = [name for name in columns if name not in table.column_names]
    if lacking:
        raise DataError(path, f"no column {', '.join(lacking)}; it has {', '.join(table.column_names)}")
    found: dict[str, np.ndarray] = {}
    for name in columns:
        column = table[name]
        if name in with_gaps:
            found[name] = column.to_numpy().astype(np.float64)
            continue
        if column.null_count:
            raise DataError(path, f"column {name} has {column.null_count} gaps")
        values = column.to_numpy()
        if values.dtype == object:
            rows = values.tolist()
            try:
                values = np.stack(rows) if rows and not isinstance(rows[0], str) else np.array(rows, np.str_)
            except ValueError as error:
                raise DataError(path, f"column {name} holds lists of different lengths") from error
        found[name] = values
    return found


class ParquetRows:
    """A parquet file of which rows are read by their keys, and no more of it than the row groups they are in.

    Raises DataError for a file that is missing or damaged; MissingExtraError without pyarrow.
    """

    def __init__(self, path: str | Path):
        self.path = path
        self._parquet = require_extra("pyarrow.parquet", "datasets")
        self._arrow = require_extra("pyarrow", "datasets")
        try:
            self._file = self._parquet.ParquetFile(path)
            self._last: tuple[Any, Any] | None = None  # what was read last: neighbours lie in one row group
        except FileNotFoundError as error:
            raise DataError(path, "no such file") from error
        except (self._arrow.ArrowException, OSError) as error:
            raise DataError(path, f"not a whole parquet file: {error}") from error

    @property
    def column_names(self) -> list[str]:
        return list(self._file.schema_arrow.names)

    def columns(self, names: Sequence[str], with_gaps: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Whole columns, as `as_arrays` gives them."""
        return as_arrays(self.path, self._read(range(self._file.num_row_groups), names), names, with_gaps)

    def rows(self, rows: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        """Some rows (K,), in the order of the file: each a dict of Arrow scalars."""
        metadata = self._file.metadata
        sizes = [metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = np.unique(np.searchsorted(ends, rows, side="right"))
        wanted = (tuple(groups.tolist()), tuple(names))
        if self._last is None or self._last[0] != wanted:
            self._last = (wanted, self._read(groups.tolist(), names))
        table = self._last[1]
        starts = ends - sizes
        place = np.cumsum([0, *(sizes[g] for g in groups)])
        found = []
        for row in np.sort(rows):
            group = int(np.searchsorted(ends, row, side="right"))
            at = int(place[np.searchsorted(groups, group)] + row - starts[group])
            found.append({name: table[name][at] for name in names})
        return found

    def _read(self, groups: Sequence[int], names: Sequence[str]) -> Any:
        lacking = [name for name in names if name not in self.column_names]
        if lacking:
            raise DataError(
                self.path, f"no column {', '.join(lacking)}; it has {', '.join(self.column_names)}"
            )
        try:
            return self._file.read_row_groups(list(groups), columns=list(names))
        except (self._arrow.ArrowException, OSError) as error:
            raise DataError(self.path, f"not a whole parquet file: {error}") from error
