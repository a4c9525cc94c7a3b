#!/bin/sh
# What a machine with a GPU can show, raw results in a folder: ./prove.sh FOLDER
# What fails tells it, and the rest is tried all the same; the status is 1 if anything did.
set -eu
out=$(realpath -m "${1:?a folder for the results}")
cd "$(dirname "$0")"
. ./libraries.sh
mkdir -p "$out"
status=0

# step FILE COMMAND…: what it prints goes into a file of the folder.
step() {
    file=$out/$1
    shift
    echo "$*"
    "$@" > "$file" || { echo "status $?: $*" >&2; status=1; }
    case $file in *.txt) cat "$file" ;; esac
}

test_gpu="./kd-train selftest --device cuda:0"
step nvidia-smi.txt nvidia-smi
step selftest.txt $test_gpu
step selftest.json $test_gpu --format json
step selftest-tf32.txt $test_gpu --precision tf32
step training_step.txt ./training_step --device cuda:0 --peer ./torch_training.py --output "$out/training_step.json"
# Slow, and so at last: accesses outside of arrays, and threads of a group that do not wait for each other.
PATH=$PATH:/usr/local/cuda/bin
if command -v compute-sanitizer > /dev/null; then
    # Libraries ask for what may not be there: only accesses count.
    step memcheck.txt compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 1 $test_gpu
    step racecheck.txt compute-sanitizer --tool racecheck --error-exitcode 1 $test_gpu
else
    echo "compute-sanitizer: not on this machine; it comes with a CUDA toolkit" | tee "$out/sanitizer.txt"
fi
exit $status
