"""What a type checker tells a user of the package: the marker is there, and the types of the public names are right."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import venv

import pytest

from house.source_files import PACKAGE

pytest.importorskip("mypy")

SCRIPT = """
    import numpy as np

    import qwenvis

    encoder = qwenvis.Encoder.from_pretrained("mmproj-f16.gguf", threads=2)
    qwenvis.Encoder.from_pretrained("mmproj-f16.gguf", threads=np.int64(2))
    out = encoder.encode(["cat.jpg"], max_pixels=1024 * 1024)
    reveal_type(encoder)
    reveal_type(out.embeddings)
    reveal_type(out.split())
    reveal_type(encoder.config.depth)
    for each in encoder.encode_iter(iter(["a.png"])):
        each.save("tokens.safetensors")
    try:
        encoder(np.zeros((4, 1176), np.float32), np.array([[1, 2, 2]]))
    except qwenvis.QwenvisError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """An environment that finds the package, without what is compiled, and the libraries of this one."""
    root = tmp_path_factory.mktemp("typing")
    shutil.copytree(PACKAGE, root / "lib" / "qwenvis", ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    venv.create(root / "venv", with_pip=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = root / "venv" / "lib" / version / "site-packages"
    packages.mkdir(parents=True, exist_ok=True)
    paths = [str(root / "lib"), *(entry for entry in sys.path if entry.endswith("-packages"))]
    (packages / "found.pth").write_text("\n".join(dict.fromkeys(paths)) + "\n")
    return root


def mypy_of(site, script):
    """What mypy prints of a user's script in strict mode, without the types of torch, which take it half a minute."""
    (site / "script.py").write_text(textwrap.dedent(script))
    (site / "mypy.ini").write_text("[mypy]\n[mypy-torch.*]\nfollow_imports = skip\n")
    python = site / "venv" / "bin" / "python"
    options = ["--strict", f"--python-executable={python}", f"--cache-dir={site / 'cache'}", "--config-file=mypy.ini"]
    command = [sys.executable, "-m", "mypy", *options, "script.py"]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    run = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, timeout=200, check=False)
    return run.stdout


def test_users_script_has_types(site):
    out = mypy_of(site, SCRIPT)
    assert out.splitlines()[-1] == "Success: no issues found in 1 source file", out
    revealed = [line.split('"')[1] for line in out.splitlines() if "Revealed type" in line]
    assert revealed[0] == "qwenvis.encoder.Encoder"
    assert all("ndarray" in text for text in revealed[1:3])
    assert revealed[3] == "int"


def test_mistakes_of_a_user_are_seen(site):
    wrong = 'import qwenvis\nqwenvis.Encoder.from_pretrained(3, thread="many")\nqwenvis.Encoder.nothing\n'
    out = mypy_of(site, wrong)
    assert 'incompatible type "int"' in out
    assert 'Unexpected keyword argument "thread"' in out
    assert '"type[Encoder]" has no attribute "nothing"' in out


@pytest.mark.skipif(not shutil.which("pyright"), reason="pyright is not installed")
def test_pyright_sees_the_same(site):
    mistake = '\nqwenvis.Encoder.from_pretrained("x", thread=3)\n'
    (site / "script.py").write_text(textwrap.dedent(SCRIPT) + mistake)
    (site / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
    command = ["pyright", "--outputjson", f"--pythonpath={site / 'venv' / 'bin' / 'python'}", "script.py"]
    run = subprocess.run(command, cwd=site, capture_output=True, text=True, timeout=200, check=False)
    told = json.loads(run.stdout)["generalDiagnostics"]
    errors = [each["message"] for each in told if each["severity"] == "error"]
    assert errors == ['No parameter named "thread"']
    assert any('"encoder" is "Encoder"' in each["message"] for each in told)
    assert any("ndarray" in each["message"] for each in told)


def test_without_the_marker_there_would_be_no_types(site):
    marker = site / "lib" / "qwenvis" / "py.typed"
    marker.unlink()
    try:
        assert "missing library stubs or py.typed marker" in mypy_of(site, SCRIPT)
    finally:
        marker.touch()
