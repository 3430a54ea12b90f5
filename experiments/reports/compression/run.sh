#!/usr/bin/env bash
# The tables of this report: five hours on two cores that do nothing else. Each step continues where it
# was stopped.
#
#     bash experiments/reports/compression/run.sh DATA OUTPUT
#
# From the root of the repository, with its environment active, and `pip install xllamacpp` for the
# comparisons with llama.cpp. DATA holds gsm8k/train.jsonl.gz, wikitext2/ and svamp/.
set -euo pipefail
data=$1 out=$2
mkdir -p "$out"

# The Toolformer that is compressed, made as in reports/smollm2_135m from two of its three parts.
python experiments/answer_corpus.py --data "$data/gsm8k/train.jsonl.gz" --output "$out/all.jsonl"
for part in a:1,480 b:961,1564; do
  sed -n "${part#*:}p" "$out/all.jsonl" > "$out/${part%:*}.jsonl"
  toolformer annotate --corpus "$out/${part%:*}.jsonl" --tools calculator --checkpoint smollm2-135m \
      --gin_file answers.gin --output_dir "$out/${part%:*}"
done
python experiments/balanced_calls.py --runs "$out/a" "$out/b" --output "$out/balanced.jsonl" \
    --dev "$out/dev.jsonl"
toolformer finetune --data "$out/balanced.jsonl" --dev "$out/dev.jsonl" --checkpoint smollm2-135m \
    --gin_file answers.gin --gin.FinetuneConfig.steps=80 --output_dir "$out/toolformer"

toolformer experiment --gin_file experiments/grids/compression.gin --data "$out/balanced.jsonl" \
    --arms "disabled=$out/toolformer,toolformer=$out/toolformer" --data_dir "$data" --limit 300 \
    --output_dir "$out/grid"
python experiments/compression_report.py --data_dir "$data" --output_dir "$out/perplexity" --windows 24 \
    --calibration_rows 24
python experiments/llama_cpp_texts.py --output_dir "$out/gguf"
python benchmarks/compressed_models.py --repeats 1 --model_dir "$out/models"
python benchmarks/compressed_models.py --repeats 1 --model_dir "$out/models" --prefill --tokens 1024

# The speed of models of the grid, which is not measured in the grid, and its scores by it.
models=(--model "base=$out/toolformer")
for name in layers_28 sparsity_50 int8 int4; do
  if [ ! -f "$out/small/$name/compression.json" ]; then
    rm -rf "$out/small/$name"
    toolformer compress --checkpoint "$out/toolformer" --corpus wikipedia-sample \
        --gin_file "experiments/compression/$name.gin" --output_dir "$out/small/$name"
  fi
  case $name in int8 | int4) dtype=$name ;; *) dtype=float32 ;; esac
  models+=(--model "$name=$out/small/$name,$dtype")
done
python benchmarks/compressed_models.py --repeats 1 "${models[@]}" --json "$out/speeds.json"
python experiments/compression_plot.py --grid "$out/grid" --speeds "$out/speeds.json" \
    --output "$out/svamp_speed.png"
