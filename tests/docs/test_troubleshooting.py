"""Troubleshooting: the messages that it quotes are those of the package, and every symptom has a cause and a remedy."""

import re

from house.source_files import ROOT

PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
ROWS = [re.split(r"(?<!\\)\|", line)[1:-1] for line in PAGE.splitlines() if line.startswith("| ")]
FOREIGN = {  # messages of pip, of compilers, linkers and NumPy
    "No matching distribution found for qwenvis",
    "No such file or directory: 'gcc'",
    "Python.h: No such file or directory",
    "'omp.h' file not found",
    "cannot find -lomp",
    "data type 'bfloat16' not understood",
}


def messages_of_the_package():
    """All source, in which text that continues on the next line is joined."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "qwenvis").rglob("*.py"))
    source = re.sub(r"\"\n\s*f?\"", "", source)
    constants = dict(re.findall(r'^([A-Z]+) = "(.+)"$', source, re.MULTILINE))
    return re.sub(r"\{([A-Z]+)\}", lambda name: constants.get(name[1], name[0]), source)


def test_quoted_messages_are_those_of_the_package():
    quoted = {text for row in ROWS for text in re.findall("`([^`]+)`", row[0]) if " " in text and "=" not in text}
    assert quoted > FOREIGN
    source = messages_of_the_package()
    assert not [text for text in quoted - FOREIGN if text not in source]


def test_every_symptom_has_a_cause_and_a_remedy():
    assert len(ROWS) > 50
    assert all(len(row) == 3 and all(cell.strip() for cell in row) for row in ROWS)
