"""Encode the images of a directory, or of the rows of a Parquet file, with Ray Data, and write Parquet.

    python examples/ray_encode.py photos/ tokens/ --model ./checkpoint --actors 2
    python examples/ray_encode.py photos.parquet tokens/ --model ./checkpoint --name id --column image

Rows are the names of images, their tokens, and errors (docs/ray.md). The same command again, after a kill, encodes the
images that have no row yet. Needs: pip install 'qwenvis[ray]'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pyarrow.parquet
import ray

from qwenvis.adapters.ray_data import encode

SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")


def main() -> None:
    """Read the command line, encode what is left, and print what is there."""
    arguments = parsed()
    out = Path(arguments.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    names = done(out, arguments.name)
    rows = images(arguments, names)
    if rows is not None:
        limits = {} if arguments.max_pixels is None else {"max_pixels": arguments.max_pixels}
        encoded = encode(
            rows,
            arguments.model,
            actors=arguments.actors,
            num_cpus=arguments.num_cpus,
            batch_size=arguments.batch_size,
            column=arguments.column,
            dtype=arguments.dtype,
            threads=arguments.threads,
            limits=limits,
        )
        encoded.drop_columns([arguments.column]).write_parquet(str(out))
    errors = [
        error
        for file in files(out)
        for error in pyarrow.parquet.read_table(file, columns=["error"])["error"].to_pylist()
    ]
    print(f"{len(errors)} rows in {out}, {len(errors) - errors.count(None)} with an error, {len(names)} of them before")


def parsed() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", help="a directory of images, or a Parquet file")
    parser.add_argument("out", help="the directory of the Parquet files")
    parser.add_argument("--model", required=True, help="a checkpoint; actors share the memory of a packed one")
    parser.add_argument("--column", default="image", help="the column of the Parquet file with the images")
    parser.add_argument("--name", default="path", help="the column of the Parquet file with a name for each row")
    parser.add_argument("--dtype", default="float32", help="the format of the weights")
    parser.add_argument("--max-pixels", type=int)
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--num-cpus", type=int, help="the CPUs that an actor asks Ray for")
    parser.add_argument("--threads", type=int, help="the threads of an actor; default: its CPUs")
    parser.add_argument("--batch-size", type=int, default=16)
    return parser.parse_args()


def images(arguments: argparse.Namespace, names: set[str]) -> ray.data.Dataset | None:
    """Return rows of a name and an image each, without those that have tokens; None if none is left."""
    source = Path(arguments.input)
    if source.is_dir():
        found = sorted(file for file in source.rglob("*") if file.suffix.lower().removeprefix(".") in SUFFIXES)
        left = [str(file.resolve()) for file in found if str(file.resolve()) not in names]
        if not left:
            return None
        rows = ray.data.read_binary_files(left, include_paths=True)
        return rows.rename_columns({"bytes": arguments.column, "path": arguments.name})
    rows = ray.data.read_parquet(str(source), columns=[arguments.name, arguments.column])
    return rows.filter(lambda row: row[arguments.name] not in names)


def files(out: Path) -> list[Path]:
    """Return the Parquet files of earlier runs. A file that a kill has cut has no footer, and is removed."""
    whole = []
    for file in sorted(out.glob("*.parquet")):
        try:
            pyarrow.parquet.read_metadata(file)
            whole.append(file)
        except pyarrow.ArrowInvalid as error:
            print(f"{file} was cut, and is removed: {error}", file=sys.stderr)
            file.unlink()
    return whole


def done(out: Path, name: str) -> set[str]:
    """Return the names that have a row."""
    return {each for file in files(out) for each in pyarrow.parquet.read_table(file, columns=[name])[name].to_pylist()}


if __name__ == "__main__":
    main()
