#!/usr/bin/env bash
# Builds the wheel, installs it into an empty environment, and uses it from outside the repository.
# PYTHON: the interpreter to build with and to make the environment from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
repository=$PWD
python=$(cd "$(dirname "$(command -v "${PYTHON:-python3}")")" && pwd)/$(basename "${PYTHON:-python3}")
recipe=tatoeba-en-es-demo

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf 'wheel: %s\n' "$*"; }
die() {
    say "$*" >&2
    exit 1
}

say "building"
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$work" "$repository"
wheel=$(echo "$work"/sublayer-*.whl)

contents=$("$python" -m zipfile --list "$wheel")
page=(src/sublayer/inspection/page/*)
for file in sublayer/py.typed "sublayer/recipes/$recipe.toml" "${page[@]#src/}"; do
    grep -q "^$file " <<< "$contents" || die "$file is missing from $(basename "$wheel")"
done

say "installing into an empty environment"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check -c "$repository/constraints.txt" "$wheel"

# Outside the repository, and without anything that would let the source tree be found.
cd "$work"
unset PYTHONPATH
export PYTHONSAFEPATH=1
"$work/venv/bin/python" - "$work/venv" << 'END'
import sys
from pathlib import Path

import sublayer

where = Path(sublayer.__file__).resolve()
assert where.is_relative_to(Path(sys.argv[1]).resolve()), f"sublayer was imported from {where}"
END

say "sublayer --help"
"$work/venv/bin/sublayer" --help > help.txt
grep -q translate help.txt || die "the help does not name 'translate'"
say "sublayer describe $recipe"
"$work/venv/bin/sublayer" describe "$recipe" > describe.txt
grep -qi encoder describe.txt || die "the description does not name the encoder"

say "import time"
"$work/venv/bin/python" - << 'END'
import statistics
import subprocess
import sys
import time


def seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


# In turns, after one of each for the disk's cache, so that a busy moment falls on both.
pairs = [(seconds("import torch"), seconds("import torch; import sublayer")) for _ in range(6)][1:]
torch, both = (statistics.median(column) for column in zip(*pairs, strict=True))
sys.stdout.write(f"wheel: import torch {torch:.2f} s, with sublayer {both:.2f} s: {both - torch:+.2f} s\n")
if both - torch >= 0.3:
    sys.exit("wheel: `import sublayer` must add less than 0.3 s to `import torch`")
END
say "good"
