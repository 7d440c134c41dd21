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
for file in sublayer/py.typed "sublayer/recipes/$recipe.toml" sublayer/fast/engine/libengine.so "${page[@]#src/}"; do
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

say "what \`import sublayer\` loads"
"$work/venv/bin/python" - << 'END'
import subprocess
import sys

# Counted, not timed: what costs is what is loaded, and a busy machine cannot change that.
new = "import sys, torch; before = set(sys.modules); import sublayer; print(*(set(sys.modules) - before))"
loaded = subprocess.run([sys.executable, "-c", new], check=True, capture_output=True, text=True).stdout.split()
others = sorted({name.partition(".")[0] for name in loaded} - {"sublayer"} - set(sys.stdlib_module_names))
sys.stdout.write(f"wheel: {len(loaded)} modules more than torch's own, of other packages: {others or 'none'}\n")
if others or len(loaded) > 20:
    sys.exit("wheel: `import sublayer` must load no other package, and few modules: heavy imports stand where used")
END
say "good"
