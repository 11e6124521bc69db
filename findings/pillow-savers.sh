#!/usr/bin/env bash
# Pillow: formats that are registered for saving, and cannot be saved.
#
# Guess: a program that takes the name of an output file can refuse suffixes that Pillow does not write, before it
# computes anything, by looking them up: `Image.registered_extensions()[suffix] in Image.SAVE`.
# Found: BUFR, GRIB, HDF5 and WMF are in `Image.SAVE` like any other format. Their savers are places for handlers of an
# application, and without one they raise OSError when the pixels are there to be written. The same formats are in
# `Image.OPEN`, so a lookup there tells as little. What tells is to save one pixel of each.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0
"$work/venv/bin/python" - <<'PYTHON'
import io

import PIL
from PIL import Image

Image.init()
print("Pillow", PIL.__version__)
refused = {}
for suffix, name in sorted(Image.registered_extensions().items()):
    if name not in Image.SAVE:
        continue
    reasons = []
    for mode in ("RGB", "L", "1", "P"):  # some formats take a few modes only
        try:
            Image.new(mode, (16, 16)).save(io.BytesIO(), name)
            break
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {error}")
    else:
        refused.setdefault(name, (reasons[0], []))[1].append(suffix)
for name, (reason, suffixes) in refused.items():
    print(name, *suffixes, "is in Image.SAVE:", name in Image.SAVE, "|", reason)
assert set(refused) == {"BUFR", "GRIB", "HDF5", "WMF"}
PYTHON
# Seen:
# Pillow 13.0.0
# BUFR .bufr is in Image.SAVE: True | OSError: BUFR save handler not installed
# WMF .emf .wmf is in Image.SAVE: True | OSError: WMF save handler not installed
# GRIB .grib is in Image.SAVE: True | OSError: GRIB save handler not installed
# HDF5 .h5 .hdf is in Image.SAVE: True | OSError: HDF5 save handler not installed
