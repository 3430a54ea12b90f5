#!/usr/bin/env bash
# SVAMP after GSM8K's own calculator calls, which no model proposed: the ceiling of this report, 12 to 40
# minutes of training on two cores of a Xeon with AMX. Each step continues where it was stopped.
#
#     bash experiments/reports/smollm2_135m/ceiling.sh DATA OUTPUT
#
# From the root of the repository, with its environment active. DATA holds gsm8k/train.jsonl.gz and
# svamp.
set -euo pipefail
data=$1 out=$2
mkdir -p "$out"

python experiments/gsm8k_ceiling.py --data "$data/gsm8k/train.jsonl.gz" --output "$out/calls.jsonl"
python experiments/balanced_calls.py --runs "$out/calls.jsonl" --output "$out/train.jsonl" \
    --dev "$out/dev.jsonl"
toolformer finetune --data "$out/train.jsonl" --dev "$out/dev.jsonl" --checkpoint smollm2-135m \
    --gin_file answers.gin --gin.FinetuneConfig.steps=300 --gin.FinetuneConfig.save_every=50 \
    --gin.ModelConfig.dtype="'bfloat16'" --output_dir "$out/model"
toolformer evaluate --tasks svamp --data_dir "$data" --tools calculator \
    --arms "toolformer=$out/model" --output_dir "$out/svamp"
