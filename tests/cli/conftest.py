"""The command line, in process."""

import pytest

from qwenvis import cli


@pytest.fixture
def run(capsys):
    """Run a command line: (exit code, lines on stdout, stderr)."""

    def run(line):
        code = cli.main(line.split())
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run
