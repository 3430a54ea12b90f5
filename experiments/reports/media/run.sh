#!/usr/bin/env bash
# The figures of this report.
#
#     bash experiments/reports/media/run.sh PHOTOS OUTPUT
#
# From the root of the repository, with its environment active and toolformer_jax[media] in it, on a
# machine with espeak-ng and flite. PHOTOS is the folder skimage/data of the wheel
# scikit-image==0.26.0, unpacked; OUTPUT gets the corpus and the runs.
set -euo pipefail
python experiments/media_corpus.py --output "$2/corpus" --photos "$1"
python experiments/media_components.py --corpus "$2/corpus" --items 40
for pair in text:ocr photo:recognize speech:transcribe video:frames; do
  toolformer annotate --corpus "$2/corpus/${pair%%:*}.jsonl" --checkpoint smollm2-135m \
      --tools "${pair##*:}" --output_dir "$2/runs/${pair%%:*}" \
      --gin.ToolConfig.tau_s=0.0 --gin.ToolConfig.k=2 --gin.ToolConfig.m=1 \
      --gin.ToolConfig.tau_f=0.5 --gin.AnnotationConfig.temperature=0.4 \
      --gin.AnnotationConfig.max_call_tokens=16 --gin.AnnotationConfig.force_name=True
done
python experiments/media_calls.py --corpus "$2/corpus" --runs "$2/runs"
