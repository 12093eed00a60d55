#!/bin/sh
# Pretraining on the devices of one machine, or of several:
#   sh launch/pretrain.sh CORPUS OUTPUT [squeezebert pretrain's other options]
# On several machines start it on each, with the same NODES and MASTER (host:port of the first), and NODE 0, 1, ...
# RECIPE=recipes/pretrain-512.yaml takes another recipe than the first phase's.
# Every machine has to see CORPUS and OUTPUT. A run that was cut off goes on when it is started again.
set -eu
corpus=$1 output=$2
shift 2
here=$(dirname "$0")
devices=${DEVICES:-$(python -c 'import torch; print(max(1, torch.accelerator.device_count() if torch.accelerator.is_available() else 1))')}
if [ "${NODES:-1}" = 1 ]; then
    meeting=--standalone
else
    meeting="--nnodes $NODES --node-rank ${NODE:-0} --rdzv-backend c10d --rdzv-endpoint $MASTER --rdzv-id squeezebert"
fi
# shellcheck disable=SC2086  # several words
exec torchrun $meeting --nproc-per-node "$devices" \
    -m squeezebert pretrain "$corpus" --output "$output" --recipe "${RECIPE:-$here/../recipes/pretrain-128.yaml}" "$@"
