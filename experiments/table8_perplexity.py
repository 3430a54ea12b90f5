"""Table 8: perplexity on WikiText and on held-out documents, without calls.

    python experiments/table8_perplexity.py --data_dir D --arms base=C0,cc=C1,disabled=C2

D/<task>/ holds the official files; --limit N for a quick look, --dry_run for the plan.
"""

import sys

from reproduce import command

TITLE = 'Table 8: perplexity'
TASKS = ('wikitext2', 'corpus')

if __name__ == '__main__':
  sys.exit(command('table8_perplexity', TITLE, TASKS))
