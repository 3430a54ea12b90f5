#!/usr/bin/env bash
# SVAMP and ASDiv after the calculator's calls in GSM8K's training problems: the run of 2026-11-29 of
# this report, two to three hours on two cores. Each step continues where it was stopped.
#
#     bash experiments/reports/smollm2_135m/word_problems.sh DATA OUTPUT
#
# From the root of the repository, with its environment active. DATA holds gsm8k/train.jsonl.gz, svamp
# and asdiv.
set -euo pipefail
data=$1 out=$2
mkdir -p "$out"
model=(--checkpoint smollm2-135m)

python experiments/answer_corpus.py --data "$data/gsm8k/train.jsonl.gz" --output "$out/all.jsonl"
for part in a:1,480 b:961,1564 c:1565,2167; do
  sed -n "${part#*:}p" "$out/all.jsonl" > "$out/${part%:*}.jsonl"
  toolformer annotate --corpus "$out/${part%:*}.jsonl" --tools calculator "${model[@]}" \
      --gin_file answers.gin --output_dir "$out/${part%:*}"
done
python experiments/balanced_calls.py --runs "$out/a" "$out/b" "$out/c" \
    --output "$out/balanced.jsonl" --dev "$out/dev.jsonl"
toolformer finetune --data "$out/balanced.jsonl" --dev "$out/dev.jsonl" "${model[@]}" \
    --gin_file answers.gin --gin.FinetuneConfig.steps=80 --output_dir "$out/toolformer"
for task in svamp asdiv; do
  toolformer evaluate --tasks $task --data_dir "$data" --tools calculator \
      --arms "toolformer=$out/toolformer" --output_dir "$out/$task"
done
