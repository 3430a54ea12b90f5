#!/usr/bin/env bash
# The tables of this report: four hours on two cores that do nothing else. Trainings and grids continue
# where they were stopped.
#
#     bash experiments/reports/adaptation/run.sh DATA CALLS OUTPUT
#
# From the root of the repository, with its environment active and the extras parity and tasks. DATA holds
# svamp/, banking77/, sib200/, scitldr/, flores200/ and wikitext2/. CALLS are the texts with calls of
# reports/compression/run.sh, OUTPUT/balanced.jsonl there.
set -euo pipefail
data=$1 calls=$2 out=$3

# The table of adapters: two of the languages of SIB-200.
mkdir -p "$out/data/sib200"
for name in svamp banking77 sib200/eng_Latn sib200/zho_Hans; do
  ln -sfn "$(realpath "$data/$name")" "$out/data/$name"
done
adapters=(toolformer experiment --gin_file experiments/grids/adapters.gin --data "$calls" --data_dir "$out/data")
"${adapters[@]}" --output_dir "$out/adapters"

# The rates of the table: the mean loss of the last 15 of 60 steps with seed 0. The highest rates of all weights, LoRA and
# Houlsby were stopped after 22 to 34 steps, when their loss was above that of the next lower rate.
rate() {  # GIN_FILE RATE
  folder="$out/rates/$(basename "$1" .gin)_$2"
  "${adapters[@]}" --gin_file "$1" --gin.FinetuneConfig.learning_rate="$2" --gin.GridConfig.ablations="()" \
      --gin.GridConfig.seeds="(0,)" --arms toolformer --tasks svamp --limit 1 --output_dir "$folder"
  python - "$folder"/stages/finetune-*/metrics.jsonl <<'END'
import json, pathlib, statistics, sys
steps = [json.loads(line) for line in pathlib.Path(sys.argv[1]).read_text().splitlines()]
losses = [step['loss'] for step in steps if 'loss' in step]
print(sys.argv[1], statistics.fmean(losses[-15:]))
END
}
for rate in 1e-4 3e-4 1e-3; do rate experiments/grids/adapters.gin $rate; done
for rate in 1e-3 3e-3 1e-2; do rate experiments/adapters/lora.gin $rate; done
for rate in 1e-3 1e-2 3e-2; do rate experiments/adapters/adalora.gin $rate; done
for rate in 3e-3 3e-2 1e-1 3e-1; do rate experiments/adapters/ia3.gin $rate; done
for rate in 1e-3 3e-3 1e-2; do rate experiments/adapters/houlsby.gin $rate; done
for rate in 1e-3 3e-3; do rate experiments/adapters/pfeiffer.gin $rate; done
for rate in 1e-2 3e-2 1e-1 3e-1; do rate experiments/adapters/prefix.gin $rate; done

# Classification beside transformers and PEFT. These continue nothing.
python experiments/classification_parity.py --task sib200 --groups en --steps 40 --batch_rows 2 \
    --data_dir "$data" --output_dir "$out/sib200"
python experiments/classification_parity.py --task banking77 --steps 50 --batch_rows 2 --limit 77 \
    --data_dir "$data" --output_dir "$out/banking77"

# Summaries of one sentence, and translations into English.
write() {  # TASK STEPS QUESTIONS [SETTINGS...]
  toolformer finetune --task "$1" --data_dir "$data" --checkpoint smollm2-135m --gin_file quickstart.gin \
      --gin.FinetuneConfig.steps="$2" --gin.FinetuneConfig.save_every="$2" \
      --gin.FinetuneConfig.batch_rows=2 --gin.FinetuneConfig.row_tokens=512 \
      --gin.FinetuneConfig.schedule="'linear'" --gin.MixtureConfig.dev_texts=0 "${@:4}" --output_dir "$out/$1"
  toolformer evaluate --tasks "$1" --data_dir "$data" --checkpoint smollm2-135m \
      --arms "base,cc=$out/$1" --limit "$3" --output_dir "$out/eval_$1"
}
write scitldr 120 200
write flores200 300 180 --gin.FinetuneConfig.learning_rate=3e-3 --gin.ModelConfig.dtype="'bfloat16'"
python - "$out/eval_flores200/predictions/flores200.cc.jsonl" <<'END'  # trained minus a copy, on the same sentences
import json, pathlib, sys
import numpy as np
from sacrebleu.metrics import BLEU, CHRF
rows = [json.loads(line) for line in pathlib.Path(sys.argv[1]).read_text().splitlines()]
written = [row['prediction'].strip().partition('\n')[0] for row in rows]
sources = [row['prompt'].partition('\n')[0] for row in rows]
references = [row['answers'][0] for row in rows]
drawn = [range(len(rows)), *np.random.default_rng(0).integers(0, len(rows), (1000, len(rows)))]
for metric in (BLEU(), CHRF()):
    def score(texts, chosen):
        return metric.corpus_score([texts[i] for i in chosen], [[references[i] for i in chosen]]).score
    difference, *others = (score(written, chosen) - score(sources, chosen) for chosen in drawn)
    print(type(metric).__name__, difference, np.quantile(others, [0.025, 0.975]))
END

# A decoder trained from nothing, beside PyTorch.
python experiments/pretraining_parity.py --data_dir "$data" --output_dir "$out/pretraining"
OMP_NUM_THREADS=1 taskset -c 0 python experiments/pretraining_parity.py --steps 24 --data_dir "$data" \
    --output_dir "$out/pretraining_speed"

# The whole Toolformer on top of a decoder from nothing. The corpus of CALLS is beside it.
toolformer pretrain --corpus wikipedia-sample --gin.FinetuneConfig.steps=400 --output_dir "$out/small"
head -n 200 "$(dirname "$calls")/a.jsonl" > "$out/few.jsonl"
toolformer annotate --corpus "$out/few.jsonl" --checkpoint "$out/small" --tools calculator --gin_file quickstart.gin \
    --output_dir "$out/small_calls"
toolformer finetune --data "$calls" --checkpoint "$out/small" --gin_file quickstart.gin \
    --gin.FinetuneConfig.adapter=None --gin.FinetuneConfig.steps=200 --gin.FinetuneConfig.save_every=100 \
    --output_dir "$out/small_tuned"
toolformer evaluate --tasks svamp --data_dir "$data" --tools calculator --limit 200 \
    --arms "base=$out/small,disabled=$out/small_tuned,toolformer=$out/small_tuned" --output_dir "$out/small_svamp"
