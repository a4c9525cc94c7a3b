#!/bin/sh
# What a machine with a GPU can show, raw results in a folder: ./prove.sh FOLDER
set -eu
out=$(realpath -m "${1:?a folder for the results}")
cd "$(dirname "$0")"
. ./libraries.sh
mkdir -p "$out"
nvidia-smi > "$out/nvidia-smi.txt"
./kd-train selftest --device cuda:0 --format json > "$out/selftest.json"
./kd-train selftest --device cuda:0
./training_step --device cuda:0 --peer ./torch_training.py --output "$out/training_step.json"
