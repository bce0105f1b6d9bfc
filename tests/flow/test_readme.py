"""Every block of the README runs, in order, as a newcomer would run it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)

BOOKSHOP = """sed -i 's/"library.context:library"/&, "bookshop.context:bookshop"/' pyproject.toml\n"""


def test_the_readme_names_targets_that_exist() -> None:
    """`make test` cannot run within itself, and `make demo` has a test of its own: here they are found by make."""
    for target in re.findall(r"make ([a-z]+)", (ROOT / "README.md").read_text()):
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
    assert "make demo" in BLOCKS[0]
    assert "make test" in BLOCKS[0]


def test_what_the_readme_quotes_stands_in_code_that_runs() -> None:
    sources = [path for path in (ROOT / "tests/unit/campus").rglob("campus*") if path.suffix in {".py", ".proto"}]
    sources.append(ROOT / "tests/unit/shop/test_invoices.py")
    code = "".join(path.read_text() for path in sources)
    quoted = re.findall(r"^```(?:proto|python)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert quoted
    for block in quoted:
        assert block in code


@pytest.mark.timeout(300)  # on two busy cores; on two idle ones it takes a tenth
def test_five_minutes_to_a_service_run_as_they_are_written(tmp_path: Path, postgres: str) -> None:
    script, ports = with_own_ports("trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n" + "\n".join(BLOCKS[1:]))
    environment = {**os.environ, "TMPDIR": str(tmp_path), "DATABASE_URL": postgres}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr + "".join(path.read_text() for path in tmp_path.rglob("*.log"))
    assert done.returncode == 0, said
    assert "2 passed" in done.stdout
    assert "BOOK_IS_OUT" in said
    assert "the second reader has to wait" in done.stdout
    assert "Bob has it, as of position 2" in done.stdout
    assert "998 books lent, refused: BOOK_IS_OUT, BOOK_IS_OUT" in done.stdout
    readers = done.stdout.rpartition("Bob has it")[2]
    assert "Ada" in readers, said
    assert "Bob" in readers.partition("\n")[2], said
    assert "# up to date" in readers, said
    assert "loans" in readers, said
    assert "demand" in done.stdout, said
    assert "library: commands are remembered for ever" in done.stdout
    assert "library: would forget 0 of " in done.stdout
    assert f"library is served at 127.0.0.1:{ports['50061']} by process" in said


def with_own_ports(script: str) -> tuple[str, dict[str, int]]:
    """Have a script use other ports, free ones; give it, and them by those that were there."""
    for made, context, port in [("\ncd library\n", "library", 50051), (BOOKSHOP, "bookshop", 50052)]:
        setting = f'addresses.{context} = "127.0.0.1:{port}"'
        assert made in script
        script = script.replace(made, f"{made}sed -i 's/^contexts = .*/&\\n{setting}/' pyproject.toml\n", 1)
    ports = {port: free_port() for port in re.findall(r"127\.0\.0\.1:(\d+)", script)}
    return re.sub(r"(?<=127\.0\.0\.1:)\d+", lambda found: str(ports[found[0]]), script), ports
