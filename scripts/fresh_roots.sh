#!/bin/sh
# Tries `make demo` and `make test` on machines that have nothing: sudo scripts/fresh_roots.sh DIRECTORY
#
# Makes a root of each Debian release in DIRECTORY (8 GB each) with python3, python3-venv, make and git
# alone, clones what is committed here into it, and runs the targets: first without a compiler, then
# with gcc. A log of each is in DIRECTORY, a line of each at the end. `scripts/fresh_roots.sh DIRECTORY
# demo` runs that target alone, RELEASES=forky one release. Mirror, index and proxies are those that
# apt and pip use here. Needs root, Debian's packages mmdebstrap and debian-archive-keyring, and hours.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
packages=python3,python3-venv,make,git
releases=${RELEASES:-trixie forky} # Python 3.13, 3.14

leave() { # code, message
    echo "error: fresh_roots.sh: $2" >&2
    exit "$1"
}

[ $# -gt 0 ] || leave 2 "no directory is given. Use sudo scripts/fresh_roots.sh DIRECTORY [demo] [test]."
[ "$(id -u)" = 0 ] || leave 5 "only root can make a root. Use sudo."
command -v mmdebstrap >/dev/null || leave 5 "mmdebstrap is missing. Use apt-get install mmdebstrap."
mkdir -p "$1/pip"
directory=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- demo test

# How packages are reached from here, for apt and for pip.
apt-config dump | grep '^Acquire::' | grep -v '::IndexTargets' >"$directory/apt.conf" || true
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | head -n 1)
{
    echo '[global]'
    echo 'cert = /etc/ssl/certs/ca-certificates.crt'
    python3 -m pip config list 2>/dev/null | grep -v 'file:' | # of this machine's own disk
        sed -n "s/^[a-z:]*\.\(index-url\|extra-index-url\|proxy\|trusted-host\|timeout\)='\(.*\)'/\1 = \2/p"
} >"$directory/pip.conf"

# Mounts are of a namespace of its own, and gone with the command.
inside() { # root, command
    unshare --mount sh -eu -c '
        root=$1 pip=$2 command=$3
        mount -t proc proc "$root/proc"
        for name in dev sys; do mount --rbind "/$name" "$root/$name"; done
        mount --bind "$pip" "$root/root/.cache/pip"
        exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
            http_proxy="${http_proxy-}" https_proxy="${https_proxy-}" no_proxy="${no_proxy-}" \
            chroot "$root" sh -eu -c "$command"
    ' sh "$1" "$directory/pip" "$2"
}

make_root() { # root, release; what pip and git need of this machine is copied
    rm -rf --one-file-system "$1"
    mmdebstrap --variant=apt --include="$packages" --aptopt="$directory/apt.conf" \
        "$2" "$1" ${mirror:+"$mirror"}
    mkdir -p "$1/etc/ssl/certs" "$1/root/.cache/pip"
    cp /etc/resolv.conf /etc/hosts "$1/etc/"
    cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"
    cp "$directory/pip.conf" "$1/etc/pip.conf"
    git clone --quiet --no-hardlinks "$here" "$1/opt/seq2seq"
}

# A line of the summary: how a target went in a root.
try() { # root, what it is, log, target
    began=$(date +%s)
    if inside "$1" "cd /opt/seq2seq && make $4" >"$3" 2>&1 </dev/null; then
        how=passed
    else
        how="FAILED, see $3"
    fi
    took=$((($(date +%s) - began) / 60))
    echo "$2: make $4: $how ($took min; $(grep -E '[0-9]+ passed' "$3" | tail -n 1))"
}

: >"$directory/summary"
for release in $releases; do
    root=$directory/$release
    if ! make_root "$root" "$release" >"$root.log" 2>&1; then
        echo "$release: no root: FAILED, see $root.log" | tee -a "$directory/summary"
        continue
    fi
    python=$(inside "$root" 'python3 --version')
    for compiler in none gcc; do
        if [ $compiler != none ]; then
            install="apt-get update && apt-get install -y --no-install-recommends $compiler libc6-dev"
            inside "$root" "$install" >>"$root.log" 2>&1
        fi
        for target in "$@"; do
            try "$root" "$release ($python), compiler: $compiler" \
                "$root-$compiler-$target.log" "$target" | tee -a "$directory/summary"
        done
    done
done
! grep -q FAILED "$directory/summary"
