#!/usr/bin/env bash
# The table of this report.
#
#     bash experiments/reports/compression/run.sh DATA OUTPUT
#
# From the root of the repository, with its environment active. DATA holds wikitext2/; OUTPUT gets
# results.jsonl and report.md.
set -euo pipefail
python experiments/compression_report.py --data_dir "$1" --output_dir "$2" --windows 24 \
    --calibration_rows 24
