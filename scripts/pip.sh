#!/bin/sh
# pip.sh ARGS…: runs pip, from wherever this machine has it.
. scripts/lib.sh

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
if python3 -m pip --version >/dev/null 2>&1; then
	exec python3 -m pip "$@"
fi
for wheel in /usr/share/python-wheels/pip-*.whl; do
	[ -f "$wheel" ] && exec python3 "$wheel/pip" "$@"
done
if [ -x "$cache/pip/bin/pip" ] || python3 -m venv "$cache/pip" >/dev/null 2>&1; then
	exec "$cache/pip/bin/python3" -m pip "$@"
fi
rm -rf "$cache/pip"
fail "Python has no pip: install it (apt-get install python3-pip)"
