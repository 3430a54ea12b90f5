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
toolformer experiment --gin_file experiments/grids/adapters.gin --data "$calls" --data_dir "$out/data" \
    --output_dir "$out/adapters"

# Classification beside transformers and PEFT. These continue nothing.
python experiments/classification_parity.py --task sib200 --groups en --steps 40 --batch_rows 2 \
    --data_dir "$data" --output_dir "$out/sib200"
python experiments/classification_parity.py --task banking77 --steps 50 --batch_rows 2 --limit 77 \
    --data_dir "$data" --output_dir "$out/banking77"

# Summaries of one sentence, and translations into English.
write() {  # TASK STEPS QUESTIONS
  toolformer finetune --task "$1" --data_dir "$data" --checkpoint smollm2-135m --gin_file quickstart.gin \
      --gin.FinetuneConfig.steps="$2" --gin.FinetuneConfig.save_every="$2" \
      --gin.FinetuneConfig.batch_rows=2 --gin.FinetuneConfig.row_tokens=512 \
      --gin.FinetuneConfig.schedule="'linear'" --gin.MixtureConfig.dev_texts=0 --output_dir "$out/$1"
  toolformer evaluate --tasks "$1" --data_dir "$data" --checkpoint smollm2-135m \
      --arms "base,cc=$out/$1" --limit "$3" --output_dir "$out/eval_$1"
}
write scitldr 120 200
write flores200 60 180

# A decoder trained from nothing, beside PyTorch.
python experiments/pretraining_parity.py --data_dir "$data" --output_dir "$out/pretraining"
