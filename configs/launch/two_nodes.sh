#!/bin/sh
# Several machines without a scheduler: give this command on each of them at about the same time.
#   HEAD=node0:29500 NODES=2 sh configs/launch/two_nodes.sh dsvt_nuscenes --out /shared/runs/dsvt
# HEAD is one of the machines and a free port of it, the same everywhere; the run folder and the data are on storage
# that all of them see. A machine that is started again joins the others, and the run goes on.
torchrun --nnodes "${NODES:?how many machines}" --nproc-per-node "${GPUS:-gpu}" --max-restarts "${RESTARTS:-3}" \
    --rdzv-backend c10d --rdzv-endpoint "${HEAD:?host:port of one machine}" --rdzv-id "${RUN:-sparse3d}" \
    -m sparse3d train --resume-if-begun "$@"
