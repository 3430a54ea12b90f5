#!/usr/bin/env bash
# The tables of this report: two hours on two cores that do nothing else. Each step continues where it
# was stopped.
#
#     bash experiments/reports/compression/run.sh DATA RUN OUTPUT
#
# From the root of the repository, with its environment active, and `pip install xllamacpp` for the last
# two steps. DATA holds wikitext2/ and svamp/; RUN is the output of reports/smollm2_135m/run.sh, of which
# balanced.jsonl and toolformer/ are read.
set -euo pipefail
data=$1 run=$2 out=$3
python experiments/compression_report.py --data_dir "$data" --output_dir "$out/perplexity" --windows 24 \
    --calibration_rows 24
toolformer experiment --gin_file experiments/grids/compression.gin --data "$run/balanced.jsonl" \
    --arms "disabled=$run/toolformer,toolformer=$run/toolformer" --data_dir "$data" --limit 300 \
    --output_dir "$out/grid"
python experiments/llama_cpp_texts.py --output_dir "$out/gguf"
python benchmarks/compressed_models.py --repeats 1 --model_dir "$out/models"
python benchmarks/compressed_models.py --repeats 1 --model_dir "$out/models" --prefill --tokens 1024
