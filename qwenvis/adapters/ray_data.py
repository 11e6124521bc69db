"""Visual tokens as Arrow columns of Ray Data, which Parquet, pandas, datasets and Lance store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qwenvis.adapters.ray_cluster import StarvationWatch, cpus_of_an_actor
from qwenvis.embeddings import Embeddings
from qwenvis.embeddings.convert import ARROW_DTYPES, arrow_columns, import_pyarrow
from qwenvis.encoder import Encoder
from qwenvis.errors import InputError, QwenvisError, check_choice, checked_integer, listed, spoils_one_item

if TYPE_CHECKING:
    import pyarrow
    from ray.data import Dataset

__all__ = ["Encode", "encode"]

KINDS = ("image", "video")
COLUMNS = ("key", "height", "width", "grid_thw", "tokens", "error")  # that a batch gets


class Encode:
    """An actor that encodes one image or video a row: ``rows.map_batches(Encode, fn_constructor_args=(source,), ...)``.

    `encode` chooses the arguments of ``map_batches``. A batch gets the columns

    - ``tokens``: ``list<fixed_size_list<T>[W]>``, (tokens, W); deepstack follows side by side (`Embeddings.wide`).
    - ``grid_thw``, ``height``, ``width``, ``key``: as in `Embeddings`. Equal keys are equal items of one model.
    - ``error``: why the item cannot be used, or null. The other columns are null in a row with an error.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        column: str = "image",
        kind: str = "image",
        dtype_out: str = "float32",
        limits: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Load the encoder. Actors of one machine share the memory of a packed checkpoint.

        - ``source``, ``options``: the arguments of `Encoder.from_pretrained`. Ray sets ``OMP_NUM_THREADS`` to the
          ``num_cpus`` of the actor, which is the default of ``threads``.
        - ``column``: the column with the items: paths, bytes, arrays, or dicts with ``bytes`` or a ``path``, as in the
          image columns of datasets. ``kind``: "image" or "video".
        - ``dtype_out``: "float32" or "float16", in which tokens are stored. Arrow has no bfloat16.
        - ``limits``: more arguments of `Encoder.encode_iter`, such as ``max_pixels`` or ``fps``.

        Raises InputError for these arguments, PackageError without pyarrow, and the errors of
        `Encoder.from_pretrained`.
        """
        check_choice(kind, "kind", KINDS)
        check_choice(dtype_out, "dtype_out", ARROW_DTYPES)
        self.pyarrow = import_pyarrow("Encode")
        self.column, self.kind, self.dtype_out, self.limits = column, kind, dtype_out, dict(limits or {})
        self.encoder = Encoder.from_pretrained(source, **options)
        self.watch = StarvationWatch()

    def __call__(self, batch: Any) -> pyarrow.Table:
        """Return the batch, a table or a dict of columns, as a table with the columns of the tokens.

        Raises InputError for a batch without the column or with one of the new columns, and the errors of
        `Encoder.encode_iter` that are not about one item.
        """
        self.watch.stop()
        table = batch if isinstance(batch, self.pyarrow.Table) else _as_table(batch)
        if self.column not in table.column_names:
            raise InputError(f"the batch has no column {self.column}; it has {listed(table.column_names)}")
        if taken := set(COLUMNS) & set(table.column_names):
            raise InputError(f"the batch has the columns {listed(sorted(taken))} already; rename or drop them")
        columns = self._columns(list(self._encoded(_items(table, self.column))))
        for name in COLUMNS:
            table = table.append_column(name, columns[name])
        return table

    def _encoded(self, items: list[Any]) -> Iterator[Embeddings | str]:
        """Yield the tokens of each item, or why it cannot be used."""
        arguments: dict[str, Any] = {f"{self.kind}s": items, **self.limits}
        stream = self.encoder.encode_iter(**arguments)
        for _ in items:
            try:
                item = next(stream)
            except QwenvisError as error:
                if not spoils_one_item(error):
                    raise
                yield re.sub(rf"^{self.kind} \d+", self.kind, str(error))  # its number in the batch tells nothing
            else:
                yield self._rounded(item)

    def _rounded(self, item: Embeddings) -> Embeddings | str:
        """Return an item in the dtype of the column, or why it cannot have it."""
        try:
            return item._with(sources=[self.kind]).astype(self.dtype_out)
        except InputError as error:  # a value is outside the range of float16
            return str(error)

    def _columns(self, found: list[Embeddings | str]) -> dict[str, pyarrow.Array]:
        """Return the columns of the tokens and that of the errors, a row for each item."""
        good = [item for item in found if isinstance(item, Embeddings)]
        numbers = iter(range(len(good)))
        places = self.pyarrow.array([None if isinstance(item, str) else next(numbers) for item in found], "int64")
        encoded = Embeddings.concatenate(good) if good else self.encoder.encode([])
        tokens = encoded.to_arrow(self.dtype_out)
        columns = arrow_columns(encoded.keys, encoded.sizes, encoded.grid_thw, tokens)
        reasons = [item if isinstance(item, str) else None for item in found]
        taken = {name: values.take(places) for name, values in columns.items()}
        return {**taken, "error": self.pyarrow.array(reasons, "string")}


def encode(
    rows: Dataset,
    source: str | os.PathLike[str],
    *,
    actors: int = 1,
    num_cpus: int | None = None,
    batch_size: int = 16,
    **arguments: Any,
) -> Dataset:
    """Return the rows with the columns of `Encode`, to be computed by a pool of actors that leaves Ray's readers a CPU.

    - ``source``, ``arguments``: the arguments of `Encode`.
    - ``actors``, ``num_cpus``: how many actors, and of how many of Ray's CPUs each; by default they share all but one.
      Ray's CPUs are a count: ``threads`` chooses the threads of an actor, by default one for each of its CPUs.
    - ``batch_size``: rows of a call. The rows of a batch wait for its last item, and are encoded again if the actor is
      killed.

    Raises InputError for actors that would take all CPUs of the cluster: no reader could run, and Ray would wait for
    ever without an error.
    """
    import ray

    count = checked_integer(actors, "actors", 1)
    cpus = cpus_of_an_actor(count, num_cpus)
    return rows.map_batches(
        Encode,
        fn_constructor_args=(os.fspath(source),),
        fn_constructor_kwargs=arguments,
        batch_size=checked_integer(batch_size, "batch_size", 1),
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=cpus,
    )


def _as_table(batch: Any) -> pyarrow.Table:
    """Return a batch of NumPy or pandas as a table, as Ray does with what a function returns."""
    from ray.data.block import BlockAccessor, BlockType

    block = BlockAccessor.batch_to_block(batch, BlockType.ARROW)
    return BlockAccessor.for_block(block).to_arrow()


def _items(table: pyarrow.Table, column: str) -> list[Any]:
    """Return the paths, bytes or arrays of a column."""
    if hasattr(table.schema.field(column).type, "extension_name"):  # a tensor of Ray
        from ray.data.block import BlockAccessor

        return list(BlockAccessor.for_block(table).to_numpy([column])[column])
    return [_content(cell) if isinstance(cell, dict) else cell for cell in table[column].to_pylist()]


def _content(cell: dict[str, Any]) -> Any:
    """Return the bytes or the path of an image in a column of datasets."""
    return cell.get("bytes") or cell.get("path")
