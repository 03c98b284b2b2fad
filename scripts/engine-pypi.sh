#!/bin/sh
# engine-pypi.sh DIR: llama.cpp's server out of the Python package xllamacpp.
#
# The package holds the whole server as a library; llama_server.py gives it back its
# command line. It has no llama-quantize.
. scripts/lib.sh

dir=$1
python=$(python)
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "Python 3.10 or newer is needed"

fetch_wheels xllamacpp 33800000 "$dir/.work" xllamacpp==2026.10.11549
"$python" -m zipfile -e "$dir"/.work/*.whl "$dir/site"
rm -rf "$dir/.work"

cp scripts/llama_server.py "$dir/"
cat >"$dir/llama-server" <<SERVER
#!/bin/sh
exec '$python' '$dir/llama_server.py' "\$@"
SERVER
chmod +x "$dir/llama-server"
