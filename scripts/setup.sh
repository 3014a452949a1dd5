#!/bin/sh
# Makes sure that the compiler, pkg-config and the libraries of docs/dependencies.md are there.
# On Debian and Ubuntu what is missing is installed with apt-get; elsewhere it is named.
# Does nothing, and needs no network, when all is present.
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
have python3 || miss python3 "python3 (checks and command line tests)"
# The C library's headers are a package of their own.
if have cc && ! echo '#include <stdio.h>' | cc -E - >/dev/null 2>&1; then
    miss libc6-dev "headers of the C library"
fi
if have pkg-config; then
    pkg-config --exists liburing || miss liburing-dev "liburing (io_uring)"
    pkg-config --exists libpcre2-8 || miss libpcre2-dev "PCRE2, 8-bit (tokenizer patterns)"
    pkg-config --exists libutf8proc || miss libutf8proc-dev "utf8proc (Unicode normalisation)"
    pkg-config --exists jansson || miss libjansson-dev "jansson (JSON)"
    pkg-config --exists cmocka || miss libcmocka-dev "cmocka (tests)"
else
    miss pkg-config "pkg-config"
    packages="$packages liburing-dev libpcre2-dev libutf8proc-dev libjansson-dev libcmocka-dev"
    names="$names
  liburing, PCRE2 (8-bit), utf8proc, jansson, cmocka with their headers (if not present)"
fi
[ -z "$packages" ] && exit 0

if ! have apt-get; then
    echo "missing on this system:$names" >&2
    echo "install these with the system's package manager, then run this again" >&2
    exit 1
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
    if ! have sudo; then
        echo "missing packages:$packages" >&2
        echo "installing them needs root: apt-get install$packages" >&2
        exit 1
    fi
    as_root="sudo"
fi
echo "installing:$packages" >&2
# A list of packages that was never fetched, or is too old, is the usual reason for a failure.
$as_root apt-get -qq update || echo "apt-get update failed; trying with the lists that are here" >&2
# shellcheck disable=SC2086 # words are package names
$as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -y --no-install-recommends install $packages >&2
