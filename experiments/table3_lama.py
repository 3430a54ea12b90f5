"""Table 3: LAMA, where the Wikipedia search is not allowed.

    python experiments/table3_lama.py --data_dir D --arms base=C0,cc=C1,disabled=C2,toolformer=C2

D/<task>/ holds the official files; --limit N for a quick look, --dry_run for the plan.
"""

import sys

from reproduce import command

TITLE = 'Table 3: LAMA'
TASKS = ('lama',)

if __name__ == '__main__':
  sys.exit(command('table3_lama', TITLE, TASKS))
