#!/bin/sh
# Trains resnet8-cifar10.toml on the first GPU, with kd-train and in PyTorch: ./run.sh DATA [EPOCHS]
set -eu
data=$(realpath "${1:?the folder of the binary version of CIFAR-10}")
epochs=${2:-8}
cd "$(dirname "$0")"
. ./libraries.sh
keys="data.path=$data train.epochs=$epochs compare.seeds=[]"
./kd-train run resnet8-cifar10.toml $keys --device cuda:0 --force --output runs/cuda
./kd-train check resnet8-cifar10.toml $keys --format json > runs/recipe.json
python3 torch_recipe.py train runs/recipe.json "$(nproc)" 1 cuda:0
