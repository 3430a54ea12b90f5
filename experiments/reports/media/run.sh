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
      --tools "${pair##*:}" --output_dir "$2/runs/${pair%%:*}" --gin_file media.gin
done
python experiments/media_calls.py --corpus "$2/corpus" --runs "$2/runs"
toolformer finetune --data "$2"/runs/{text,photo,speech,video} --checkpoint smollm2-135m \
    --gin_file media.gin --output_dir "$2/tuned"
python experiments/media_answers.py --corpus "$2/corpus" --checkpoint "$2/tuned"
