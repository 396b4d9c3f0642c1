#!/usr/bin/env bash
# Create the development environment and install the named distributions into it, editable.
#
#   PYTHON=python3.12 VENV=.venv tools/setup.sh core plugins/task_queue
#
# Uses uv when it is there, else venv and pip. A system package that is missing is installed where
# the user is root on a Debian-like system, and named in the error elsewhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${VENV:-.venv}

say() { printf '%s\n' "$*" >&2; }
die() {
    say "error: $*"
    exit 1
}
found() { command -v "$1" >/dev/null 2>&1; }

# need COMMAND_DESCRIPTION PACKAGE: install a system package, or say which one is missing.
need() {
    if [ "$(id -u)" = 0 ] && found apt-get; then
        say "$1 is missing: installing the system package $2"
        DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || true
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2" >&2 && return 0
    fi
    die "$1 is missing. Install it (on Debian or Ubuntu: sudo apt-get install $2) and run make again."
}

new_enough() { found "$1" && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" || die "PYTHON=$PYTHON is not a Python of version 3.10 or newer."
        return
    fi
    for PYTHON in python3 python3.13 python3.12 python3.11 python3.10; do
        if new_enough "$PYTHON"; then return; fi
    done
    need "Python 3.10 or newer" python3
    PYTHON=python3
    new_enough "$PYTHON" || die "python3 is older than 3.10. Install a newer one and name it: make setup PYTHON=..."
}

create_venv() {
    if [ -x "$venv/bin/python" ]; then return; fi
    choose_python
    if found uv; then
        uv venv --quiet --seed --python "$PYTHON" "$venv"
        return
    fi
    if ! "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null; then
        need "the venv module of $PYTHON" "python$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    fi
    "$PYTHON" -m venv "$venv"
}

install() {
    if found uv; then
        uv pip install --quiet --python "$venv/bin/python" --constraint constraints.txt "$@"
    else
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --constraint constraints.txt "$@"
    fi
}

create_venv
targets=()
for dist in "$@"; do
    case $dist in
    core) targets+=(-e "core[fast,trio]") ;;
    *) targets+=(-e "$dist") ;;
    esac
done
# Older versions of pip know no dependency groups.
found uv || install "pip>=25.1"
# Every process that is measured loads it, wherever it runs.
install_plugin_of_coverage() {
    cp tools/interruptible_coverage.py \
        "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
}

if install --group dev "${targets[@]}"; then
    install_plugin_of_coverage
    exit
fi

# Most often a dependency without a wheel for this system, whose build lacks something.
mended=
if ! found cc && ! found gcc; then
    need "a C compiler, which building a dependency takes," gcc
    mended=yes
fi
if ! "$venv/bin/python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'; then
    need "the C header Python.h, which building a dependency takes," \
        "python$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-dev"
    mended=yes
fi
[ -n "$mended" ] || die "the installation failed, see above."
install --group dev "${targets[@]}"
install_plugin_of_coverage
