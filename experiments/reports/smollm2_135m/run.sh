#!/usr/bin/env bash
# From the data sets to the tables of this report: half a day on two cores. Each step continues where
# it was stopped, and does nothing again that is done.
#
#     bash experiments/reports/smollm2_135m/run.sh DATA OUTPUT
#
# From the root of the repository, with its environment active; `make apertium` for the translator.
# DATA holds gsm8k/train.jsonl.gz (the corpus of the calculator), usgov_posts/posts.jsonl.gz (of the
# other tools), wikipedia/enwiki2019_subset.jsonl.gz (searched) and the files of the tasks.
set -euo pipefail
data=$1 out=$2
mkdir -p "$out"
search="--gin.SearchConfig.corpus='$data/wikipedia/enwiki2019_subset.jsonl.gz'"
model=(--checkpoint smollm2-135m)

# Word problems. Texts 481 to 960 are left out: they had been the second round of bootstrapping.
python experiments/answer_corpus.py --data "$data/gsm8k/train.jsonl.gz" --output "$out/all.jsonl"
for part in a:1,480 c:961,2167; do
  sed -n "${part#*:}p" "$out/all.jsonl" > "$out/${part%:*}.jsonl"
  toolformer annotate --corpus "$out/${part%:*}.jsonl" --tools calculator "${model[@]}" \
      --gin_file answers.gin --output_dir "$out/${part%:*}"
done
python experiments/balanced_calls.py --runs "$out/a" "$out/c" --output "$out/balanced.jsonl" \
    --dev "$out/dev.jsonl"

# Web posts.
python experiments/web_posts.py --posts "$data/usgov_posts/posts.jsonl.gz" --texts 200 --every 30 \
    --output "$out/posts.jsonl"
toolformer annotate --corpus "$out/posts.jsonl" --tools calculator,calendar,wikisearch,mt,qa \
    "${model[@]}" --gin_file quickstart.gin --output_dir "$out/web_posts" "$search"

# Toolformer, and the arm "+ CC" that sees the same texts without calls.
texts=(--data "$out/balanced.jsonl" "$out/web_posts" --dev "$out/dev.jsonl" "${model[@]}"
       --gin_file answers.gin --gin.FinetuneConfig.steps=80)
toolformer finetune "${texts[@]}" --output_dir "$out/toolformer"
toolformer finetune "${texts[@]}" --without_calls --output_dir "$out/cc"
test -d "$out/toolformer/model" -a -d "$out/cc/model"  # else they were asked to stop

# Word problems: all of them with tools, the first 300 by all arms. Then the other tasks.
arms="disabled=$out/toolformer,toolformer=$out/toolformer"
table() {
  toolformer experiment --gin_file "experiments/$1.gin" "${model[@]}" --data_dir "$data" "${@:2}"
}
table table4_math --tools calculator --arms "toolformer=$out/toolformer" --output_dir "$out/math"
table table4_math --tools calculator --limit 300 --arms "base,cc=$out/cc,$arms" \
    --output_dir "$out/arms"
for name in table3_lama table5_qa table7_temporal; do
  table "$name" --tools calculator,calendar,wikisearch,qa "$search" --limit 100 --arms "$arms" \
      --output_dir "$out/$name"
done
