"""Table 6: MLQA, its questions in English, and XQuAD in its place where MLQA is not at hand.

    python experiments/table6_mlqa.py --data_dir D --arms base=C0,cc=C1,disabled=C2,toolformer=C2

D/<task>/ holds the official files; --limit N for a quick look, --dry_run for the plan.
"""

import sys

from reproduce import command

TITLE = 'Table 6: multilingual question answering'
TASKS = ('mlqa', 'mlqa_all_en', 'xquad')

if __name__ == '__main__':
  sys.exit(command('table6_mlqa', TITLE, TASKS))
