#!/bin/sh
# Makes sure that the compiler, pkg-config and the libraries of docs/dependencies.md are there.
# On Debian and Ubuntu what is missing is installed with apt-get; elsewhere it is named.
# Does nothing, and needs no network, when all is present.
#
#   scripts/setup.sh [--build | --tests]
#
# --build: without what only tests and checks need.
# --tests: also a compiler and an emulator for 64-bit ARM, on x86. `make test` does without them (test_arm64.sh is
# skipped then), so it is no failure when they cannot be had, and nothing is removed for them.
set -eu

packages=""  # Debian package names of what is missing
names=""     # the same for people on other systems

miss() {
    packages="$packages $1"
    names="$names
  $2"
}

have() { command -v "$1" >/dev/null 2>&1; }

have "${CC:-cc}" || have gcc || miss gcc "a C11 compiler"
for_build=false
[ "${1:-}" = --build ] && for_build=true
$for_build || have python3 || miss python3 "python3 (checks and command line tests)"
# The C library's headers are a package of their own.
if have cc && ! echo '#include <stdio.h>' | cc -E - >/dev/null 2>&1; then
    miss libc6-dev "headers of the C library"
fi
if have pkg-config; then
    pkg-config --exists liburing || miss liburing-dev "liburing (io_uring)"
    pkg-config --exists libpcre2-8 || miss libpcre2-dev "PCRE2, 8-bit (tokenizer patterns)"
    pkg-config --exists libutf8proc || miss libutf8proc-dev "utf8proc (Unicode normalisation)"
    pkg-config --exists jansson || miss libjansson-dev "jansson (JSON)"
    $for_build || pkg-config --exists cmocka || miss libcmocka-dev "cmocka (tests)"
else
    miss pkg-config "pkg-config"
    packages="$packages liburing-dev libpcre2-dev libutf8proc-dev libjansson-dev"
    names="$names
  liburing, PCRE2 (8-bit), utf8proc, jansson with their headers (if not present)"
    $for_build || packages="$packages libcmocka-dev"
    $for_build || names="$names
  cmocka with its headers (if not present)"
fi
for_tests=""
if [ "${1:-}" = --tests ] && [ "$(uname -m)" = x86_64 ] && have apt-get; then
    have aarch64-linux-gnu-gcc || for_tests="$for_tests gcc-aarch64-linux-gnu"
    [ -e /usr/aarch64-linux-gnu/lib/libc.a ] || for_tests="$for_tests libc6-dev-arm64-cross"
    have qemu-aarch64 || have qemu-aarch64-static || for_tests="$for_tests qemu-user"
fi
[ -z "$packages$for_tests" ] && exit 0

if ! have apt-get; then
    echo "missing on this system:$names" >&2
    echo "install these with the system's package manager, then run this again" >&2
    exit 1
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
    # Nobody is asked for a password, or told to become root, for what tests do without.
    if [ -z "$packages" ] && ! { have sudo && sudo -n true 2>/dev/null; }; then
        echo "not installed, for one more test:$for_tests" >&2
        exit 0
    fi
    if ! have sudo; then
        echo "missing packages:$packages" >&2
        echo "installing them needs root: apt-get install$packages" >&2
        exit 1
    fi
    as_root="sudo"
fi
echo "installing:$packages$for_tests" >&2
# A list of packages that was never fetched, or is too old, is the usual reason for a failure.
$as_root apt-get -qq -o Acquire::http::Timeout=20 update ||
    echo "apt-get update failed; trying with the lists that are here" >&2
if [ -n "$packages" ]; then
    # shellcheck disable=SC2086 # words are package names
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends install $packages >&2
fi
if [ -n "$for_tests" ]; then
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends --no-remove install $for_tests >&2 ||
        echo "not installed, for one more test:$for_tests" >&2
fi
