#!/bin/sh
# get-python.sh [FILE [MODULE]]: prints the path of a Python that has the packages of FILE, by default of tools/requirements.txt. It works
# if it imports MODULE, by default openai.
cd "$(dirname "$0")/.."
. scripts/lib.sh

requirements=${1-tools/requirements.txt}
module=${2-openai}
python=$(python)
version=$("$python" -c 'import sys; print(sys.implementation.cache_tag)')
wanted=$(sha256sum "$requirements" | cut -c 1-12)
lock python
dir=$cache/python-$version-$wanted

if ! { sealed "$dir" && "$dir/bin/python3" -c "import $module" 2>/dev/null; }; then
	rm -rf "$dir"
	"$python" -m venv --without-pip "$dir" || fail "Python has no venv: install it (apt-get install python3-venv)"
	fetch_wheels "Python clients" 0 "$dir/.work" -r "$requirements"
	packages=$("$dir/bin/python3" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
	for wheel in "$dir"/.work/*.whl; do "$python" -m zipfile -e "$wheel" "$packages"; done
	rm -rf "$dir/.work"
	"$dir/bin/python3" -c "import $module" || fail "the packages of $requirements do not work here"
	seal "$dir"
fi
printf '%s\n' "$dir/bin/python3"
