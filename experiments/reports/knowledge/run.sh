#!/usr/bin/env bash
# The grids of this report: two and a half hours of one core. The same command continues a grid that was stopped.
#
#     bash experiments/reports/knowledge/run.sh DATA MODEL OUTPUT
#
# From the root of the repository, with its environment active. DATA holds nq_open, xquad, webquestions and wikipedia.
# MODEL is OUTPUT/qwen2.5_coder_0.5b.gin of reports/scaling/run.sh.
set -euo pipefail
data=$1 model=$(realpath "$2") out=$3
search=(--gin.SearchConfig.corpus="'$(realpath "$data/wikipedia/enwiki2019_subset.jsonl.gz")'")

python experiments/question_corpus.py --data_dir "$data" --output "$out" \
    --search "$data/wikipedia/enwiki2019_subset.jsonl.gz"
annotate=(toolformer annotate --gin_file questions.gin --gin_file "$model" --gin.ModelConfig.dtype="'bfloat16'"
    --corpus "$out/texts.jsonl" --tools wikisearch "${search[@]}")
"${annotate[@]}" --output_dir "$out/calls"

# The same samples, with the filter's call before the text, as in the paper.
cp -rn "$out/calls" "$out/calls_prefix"
"${annotate[@]}" --gin.AnnotationConfig.call_placement="'prefix'" --output_dir "$out/calls_prefix"

grid=(toolformer experiment --gin_file experiments/grids/knowledge.gin --data_dir "$out/found" "${search[@]}")
"${grid[@]}" --gin.GridConfig.sizes="('$model', 'models/smollm2_135m.gin')" \
    --data "$out/calls" --output_dir "$out/grid"
"${grid[@]}" --gin.GridConfig.sizes="('$model',)" --gin.GridConfig.ablations="()" --gin.ARMS="'toolformer'" \
    --data "$out/calls_prefix" --output_dir "$out/grid_prefix"
