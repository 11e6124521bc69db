"""``qwenvis cache``: list, prune and verify a directory of cached tokens."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from qwenvis.cli import arguments, units
from qwenvis.errors import InputError, counted

if TYPE_CHECKING:
    from qwenvis.cache import Cache

SUMMARY = "list, prune or verify a directory of cached tokens"
DESCRIPTION = """\
Inspect or clean up a directory that `qwenvis encode --cache DIR` fills, or in Python
Encoder.from_pretrained(..., cache=DIR): one safetensors file for each image and video, under a key that is a hash of
pixels, weights and settings.

  list    print key, tokens, size, last use and source of each item, the least recently used first
  prune   remove the least recently used items until the others take at most --size
  verify  read all items, and print the keys of the damaged ones; the exit code is 1 while there are any

Damaged items are never used: encoding replaces them. Processes may use the directory meanwhile.
"""
EXAMPLES = """\
  qwenvis cache list tokens
  qwenvis cache prune tokens --size 2GB
  qwenvis cache verify tokens --remove
"""
SHOWN_DIGITS = 16  # of a key: enough to find its file


def add(parser: argparse.ArgumentParser) -> None:
    """Add the actions of this command, and their arguments."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    for name, (action, summary) in ACTIONS.items():
        added = actions.add_parser(name, help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False)
        added.add_argument("directory", metavar="DIR", help="the directory of the cache")
        added.set_defaults(action=action, parser=added)
        arguments.add_json(added, "a JSON list, with whole keys," if name == "list" else "a JSON object")
        if name == "prune":
            text = "the size to keep, such as 500MB, 2GB or 2GiB; 0 removes all items"
            added.add_argument("--size", required=True, type=arguments.nbytes, metavar="SIZE", help=text)
        if name == "verify":
            added.add_argument("--remove", action="store_true", help="remove the damaged items")


def run(args: argparse.Namespace) -> int:
    """Run the action on an existing directory; return the exit code."""
    from qwenvis.cache import Cache
    from qwenvis.io.files import expanded

    directory = expanded(args.directory)
    if not directory.is_dir():
        raise InputError(f"there is no directory {directory}")
    code: int = args.action(Cache(directory), args)
    return code


def _list(cache: Cache, args: argparse.Namespace) -> int:
    items = list(cache)
    if args.json:
        arguments.print_json([asdict(item) for item in items])
        return 0
    rows = [("key", "tokens", "size", "last use", "source")]
    for item in items:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(item.used))
        size = units.nbytes(item.nbytes)
        told = ("damaged", "") if item.source is None else (f"{item.tokens:,}", units.name(item.source))
        rows.append((item.key[:SHOWN_DIGITS], told[0], size, used, told[1]))
    print(*units.columns(rows, "<>>><"), sep="\n")
    print(f"\n{counted(len(items), 'item')}, {units.nbytes(sum(item.nbytes for item in items))}")
    return 0


def _prune(cache: Cache, args: argparse.Namespace) -> int:
    before = cache.nbytes
    removed = cache.prune(args.size)
    after, left = cache.nbytes, len(cache)
    freed = max(0, before - after)
    if args.json:
        arguments.print_json({"removed": removed, "removed_nbytes": freed, "items": left, "nbytes": after})
        return 0
    print(f"removed {counted(removed, 'item')}, {units.nbytes(freed)}")
    print(f"{counted(left, 'item')} left, {units.nbytes(after)}")
    return 0


def _verify(cache: Cache, args: argparse.Namespace) -> int:
    bad = cache.verify(remove=args.remove)
    if args.json:
        arguments.print_json({"damaged": bad, "removed": args.remove, "items": len(cache)})
    else:
        for key in bad:
            print(key)
    damaged, left = counted(len(bad), "damaged item"), counted(len(cache), "item")
    if bad and not args.remove:
        print(f"qwenvis: {damaged} in {units.name(args.directory)}; --remove removes them", file=sys.stderr)
        return 1
    print(f"removed {damaged}; {left} left" if bad else f"{left}, none damaged", file=sys.stderr)
    return 0


ACTIONS = {
    "list": (_list, "print the items, the least recently used first"),
    "prune": (_prune, "remove the least recently used items until the others take at most --size"),
    "verify": (_verify, "read all items, and print the keys of the damaged ones"),
}
