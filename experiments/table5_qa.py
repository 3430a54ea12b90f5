"""Table 5: questions of WebQuestions, NQ and TriviaQA, without the tool QA.

    python experiments/table5_qa.py --data_dir D --arms base=C0,cc=C1,disabled=C2,toolformer=C2

D/<task>/ holds the official files; --limit N for a quick look, --dry_run for the plan.
"""

import sys

from reproduce import command

TITLE = 'Table 5: question answering'
TASKS = ('webquestions', 'nq_open', 'triviaqa')

if __name__ == '__main__':
  sys.exit(command('table5_qa', TITLE, TASKS))
