#!/bin/sh
# What a machine with a GPU can show, raw results in a folder: ./prove.sh FOLDER
# What fails tells it in its results, and the rest is tried all the same; the status is that of the last that failed.
set -eu
out=$(realpath -m "${1:?a folder for the results}")
cd "$(dirname "$0")"
. ./libraries.sh
mkdir -p "$out"
status=0
nvidia-smi > "$out/nvidia-smi.txt"
./kd-train selftest --device cuda:0 --format json > "$out/selftest.json" || status=$?
./kd-train selftest --device cuda:0 || status=$?
./training_step --device cuda:0 --peer ./torch_training.py --output "$out/training_step.json" || status=$?
exit $status
