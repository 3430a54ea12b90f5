"""Table 7: TempLAMA and Dateset.

    python experiments/table7_temporal.py --data_dir D --arms base=C0,cc=C1,toolformer=C2

D/<task>/ holds the official files; --limit N for a quick look, --dry_run for the plan.
"""

import sys

from reproduce import command

TITLE = 'Table 7: temporal questions'
TASKS = ('templama', 'dateset')

if __name__ == '__main__':
  sys.exit(command('table7_temporal', TITLE, TASKS))
