"""Table 4: word problems of ASDiv, SVAMP and MAWPS.

    python experiments/table4_math.py --data_dir D --arms base=C0,cc=C1,disabled=C2,toolformer=C2

D/<task>/ holds the official files; --limit N for a quick look, --dry_run for the plan.
"""

import sys

from reproduce import command

TITLE = 'Table 4: math'
TASKS = ('asdiv', 'svamp', 'mawps')

if __name__ == '__main__':
  sys.exit(command('table4_math', TITLE, TASKS))
