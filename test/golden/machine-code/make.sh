#!/usr/bin/env bash
# Makes the two objects whose instructions test/gpu knows. Their opcodes were compared with what nvdisasm (of the Triton wheel) prints for them.
set -euo pipefail
cd "$(dirname "$0")"
nvcc -std=c++20 --compress-mode=size -gencode arch=compute_80,code=sm_80 -cubin instructions_80.cu -o instructions_80.cubin
nvcc -std=c++20 --compress-mode=size -gencode arch=compute_90a,code=sm_90a -fatbin instructions_90a.cu -o instructions_90a.fatbin
