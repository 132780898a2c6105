#!/bin/sh
# Checks and times the Triton kernels in six minutes: scripts/gpu_check.sh [--dry-run] [PEER DATA]
#
# Compares each kernel with torch operations, runs the equality tests, and times training at three
# sizes: fused and reference, in float32 and bfloat16, and PEER, a script that trains JoeyNMT (as for
# `benchmark.py train --against`), on the first 10,000 lines of DATA, a directory with train.en,
# train.fr and what else the peer reads. Prints one table. The exit code is 1 if anything failed, or
# did not end within the six minutes. Setting up .venv comes before them; PYTHON=python3 skips it and
# takes a Python that has the requirements and pytest.
#
# --dry-run does the same on a CPU with tiny batches; kernels run in Triton's interpreter, if it is
# installed.
set -u

leave() { # code, message
    echo "error: gpu_check.sh: $2" >&2
    exit "$1"
}

# What to run, and how much of it
dry=
if [ "${1-}" = --dry-run ]; then
    dry=yes
    shift
fi
peer='' rounds=2
if [ $# = 2 ]; then
    peer=$(realpath "$1") data=$(realpath "$2") rounds=1
    [ -f "$peer" ] || leave 2 "$1 is not a file. Give the script of the peer."
    [ -f "$data/train.en" ] || leave 3 "$2 has no train.en. Give a directory with the peer's text."
elif [ $# != 0 ]; then
    leave 2 "a peer needs its data. Use scripts/gpu_check.sh [--dry-run] [PEER DATA]."
fi
cd "$(dirname "$0")/.." || exit 5
if [ -z "${PYTHON-}" ]; then
    make install || leave 5 "make install failed. See above, or give PYTHON=python3."
    PYTHON=.venv/bin/python
fi
has_triton='import sys, importlib.util as u; sys.exit(u.find_spec("triton") is None)'
if [ $dry ]; then
    export TRITON_INTERPRET=1
    device=cpu seconds=1800 rounds=1 amount='--batch 2 --updates 1 --vocabulary 200 --threads 1'
    tests='tests/test_gpu_check.py' chosen='not slow'
else
    device=cuda seconds=360 amount='--updates 10 --vocabulary 8000'
    tests='tests/test_gpu_check.py tests/test_steps.py tests/test_kernels.py' chosen=gpu
    "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
        leave 5 "torch finds no CUDA device. Use --dry-run on a CPU."
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
began=$(date +%s)
failed=0

within() { # command; ended with the six minutes
    left=$((began + seconds - $(date +%s)))
    [ $left -gt 0 ] && timeout $left "$@"
}

result() { # how a part went
    echo "$1 ($(($(date +%s) - began)) s)"
}

fail() { # which part; what it printed is in $work/log
    failed=1
    result "$1 FAILED"
    tail -n 20 "$work/log" >&2
}

# Each kernel against torch operations: prints null, or the first that differs
if "$PYTHON" -c "$has_triton"; then
    check="from seq2seq.kernels.gpu.check import main; main('$device')"
    within "$PYTHON" -c "$check" >"$work/found" 2>"$work/log"
    found=$(tail -n 1 "$work/found")
    if [ "$found" = null ]; then
        result 'kernels: equal torch operations'
    else
        fail "kernels: ${found:-no result}"
    fi
elif [ $dry ]; then
    result 'kernels: skipped, Triton is not installed'
else
    echo 'Triton is not installed' >"$work/log"
    fail 'kernels:'
fi

# The tests of equality, which leave enough for the times
# shellcheck disable=SC2086 # a list
if within timeout $((seconds / 3)) "$PYTHON" -m pytest -q -p no:cacheprovider -m "$chosen" $tests \
    >"$work/log" 2>&1; then
    result "equality: $(tail -n 1 "$work/log")"
else
    fail 'equality:'
fi

# Times: a process per size, so that a slow one does not cost the others
if [ -n "$peer" ]; then
    mkdir "$work/data"
    for file in "$data"/*.en "$data"/*.fr; do
        head -n 10000 "$file" >"$work/data/${file##*/}"
    done
fi
for size in small medium paper; do
    # shellcheck disable=SC2086 # options
    if within "$PYTHON" scripts/benchmark.py train --sizes $size --rounds $rounds $amount \
        --ways 'fused fp32,fused bf16,reference fp32,reference bf16' \
        ${peer:+--against "$peer" --data "$work/data"} >"$work/$size" 2>"$work/log"; then
        cat "$work/log" >&2
        result "times: $size"
    else
        fail "times: $size"
    fi
done

# One table: the head of the first, the rows of all, and the machine
cd "$work" || exit 5
echo
cat small medium paper | sed -n '/^| size/{p;n;p;q;}'
cat small medium paper | grep -E '^\| (small|medium|paper) '
echo
cat small medium paper | grep ' rounds in turn' | sort -u
exit $failed
