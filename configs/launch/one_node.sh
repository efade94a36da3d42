#!/bin/sh
# One machine, a process a GPU; a worker that dies is started again and the run goes on from its last checkpoint.
#   sh configs/launch/one_node.sh centerpoint_kitti --out runs/kitti
torchrun --standalone --nproc-per-node "${GPUS:-gpu}" --max-restarts "${RESTARTS:-3}" \
    -m sparse3d train "$@"
