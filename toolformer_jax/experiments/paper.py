"""Every figure of the paper's tables 2 to 10 and figure 4 (arXiv 2302.04761v1), as data."""

from dataclasses import dataclass

# Arms as in `arms.TITLES`, of GPT-J with 6.7B parameters; and two larger models without tools.
BASE, CC, DISABLED, TOOLFORMER, OPT, GPT3 = (
    'base', 'cc', 'disabled', 'toolformer', 'OPT (66B)', 'GPT-3 (175B)')
_ARMS = (BASE, CC, DISABLED, TOOLFORMER, OPT, GPT3)


def _by_arm(*values: float) -> dict[str, float]:
  return dict(zip(_ARMS, values, strict=False))


# By task and group: percentage of right answers (tables 3 to 7), perplexity (table 8).
SCORES: dict[tuple[str, str], dict[str, float]] = {
    ('lama', 'squad'): _by_arm(17.8, 19.2, 22.1, 33.8, 21.6, 26.8),
    ('lama', 'google_re'): _by_arm(4.9, 5.6, 6.3, 11.5, 2.9, 7.0),
    ('lama', 'trex'): _by_arm(31.9, 33.2, 34.9, 53.5, 30.1, 39.8),
    ('asdiv', ''): _by_arm(7.5, 9.6, 14.8, 40.4, 6.0, 14.0),
    ('svamp', ''): _by_arm(5.2, 5.0, 6.3, 29.4, 4.9, 10.0),
    ('mawps', ''): _by_arm(9.9, 9.3, 15.0, 44.0, 7.9, 19.8),
    ('webquestions', ''): _by_arm(18.5, 18.4, 18.9, 26.3, 18.6, 29.0),
    ('nq_open', ''): _by_arm(12.8, 12.2, 12.6, 17.7, 11.4, 22.6),
    ('triviaqa', ''): _by_arm(43.9, 45.6, 46.7, 48.8, 45.7, 65.9),
    ('mlqa', 'es'): _by_arm(15.2, 15.7, 19.8, 20.6, 0.3, 3.4),
    ('mlqa', 'de'): _by_arm(16.5, 14.9, 11.9, 13.5, 0.1, 1.1),
    ('mlqa', 'hi'): _by_arm(1.3, 0.5, 1.2, 1.4, 1.1, 0.1),
    ('mlqa', 'vi'): _by_arm(8.2, 8.3, 10.1, 10.6, 0.2, 1.7),
    ('mlqa', 'zh'): _by_arm(18.2, 13.7, 15.0, 16.8, 0.7, 17.7),
    ('mlqa', 'ar'): _by_arm(8.2, 4.6, 3.1, 3.7, 0.1, 0.1),
    **{('mlqa_all_en', language): {BASE: base, GPT3: gpt3} for language, base, gpt3 in (
        ('es', 24.3, 24.7), ('de', 27.0, 27.2), ('hi', 23.9, 26.1), ('vi', 23.3, 24.9),
        ('zh', 23.1, 23.6), ('ar', 23.6, 24.0))},
    ('templama', ''): _by_arm(13.7, 12.9, 12.7, 16.3, 14.5, 15.5),
    ('dateset', ''): _by_arm(3.9, 2.9, 5.9, 27.3, 1.3, 0.8),
    ('wikitext2', ''): _by_arm(9.9, 10.3, 10.3),
    ('corpus', ''): _by_arm(10.6, 10.5, 10.5)}
# Benchmarks that stand in for the paper's.
STAND_INS = {'xquad': 'mlqa'}

# Percentage of the examples of a task, of its group, or of a whole table, for which a tool was
# called.
TOOL_USE: dict[str, dict[str, str]] = {
    'lama': {'QA': '98.1'},
    **dict.fromkeys(('asdiv', 'svamp', 'mawps'), {'Calculator': '97.9 (all three)'}),
    **dict.fromkeys(('webquestions', 'nq_open', 'triviaqa'), {'WikiSearch': '99.3 (all three)'}),
    'mlqa': {'MT': '63.8 to 94.9, Hindi 7.3'},
    'mlqa/hi': {'MT': '7.3'},
    **{f'mlqa/{language}': {'MT': '63.8 to 94.9'} for language in ('es', 'de', 'vi', 'zh', 'ar')},
    'templama': {'Calendar': '0.2'},
    'dateset': {'Calendar': '54.8'}}

# Table 2: examples with calls in C*, by tool and threshold tau_f.
API_CALLS: dict[str, dict[float, int]] = {
    'QA': {0.5: 51_987, 1.0: 18_526, 2.0: 5_135},
    'WikiSearch': {0.5: 207_241, 1.0: 60_974, 2.0: 13_944},
    'Calculator': {0.5: 3_680, 1.0: 994, 2.0: 138},
    'Calendar': {0.5: 61_811, 1.0: 20_587, 2.0: 3_007},
    'MT': {0.5: 3_156, 1.0: 1_034, 2.0: 229}}


@dataclass(frozen=True)
class AtK:
  """A row of table 9: scores of all questions, and of those with and without a call (None: no such
  questions); and the percentage of questions with a call.
  """

  all: float
  with_call: float | None
  without_call: float | None
  share: float


# Table 9: T-REx and WebQuestions by the k of decoding; 0 forbids calls.
DECODING_K: dict[str, dict[int, AtK]] = {
    'lama': {0: AtK(34.9, None, 34.9, 0.0), 1: AtK(47.8, 53.0, 44.3, 40.3),
             3: AtK(52.9, 58.0, 29.0, 82.8), 10: AtK(53.5, 54.0, 22.5, 98.1)},
    'webquestions': {0: AtK(18.9, None, 18.9, 0.0), 1: AtK(19.3, 17.1, 19.9, 8.5),
                     3: AtK(26.3, 26.5, 6.6, 99.3), 10: AtK(26.3, 26.4, None, 100.0)}}

# Table 10: tool, argument, score, and whether its authors find it useful.
CALL_QUALITY: tuple[tuple[str, str, float, bool], ...] = (
    ('WikiSearch', 'War memorial Flodden', 5.49, True),
    ('Calendar', '', 2.11, True),
    ('QA', 'What is the approximate length of the Nile?', 2.08, True),
    ('Calculator', '735 / 499', 1.59, True),
    ('WikiSearch', 'Fast train success', 0.92, False),
    ('MT', 'Os Melhores Escolas em Jersey', 0.70, True),
    ('Calendar', '', 0.33, True),
    ('Calculator', '85 / 23', -0.02, False),
    ('Calendar', '', -0.41, False),
    ('QA', 'Who was last time I was with?', -1.23, False))

# Figure 4, read off its paths (error at most 0.02): parameters in millions to the averages over the
# three sets of a family, with tools and with tools disabled. GPT-J's are not those of the tables.
FAMILIES = {'LAMA': ('lama',), 'Math': ('asdiv', 'svamp', 'mawps'),
            'QA': ('webquestions', 'nq_open', 'triviaqa')}
SCALING: dict[str, dict[int, tuple[float, float]]] = {
    'LAMA': {124: (8.1, 8.1), 355: (10.7, 10.65), 775: (17.7, 12.0), 1600: (23.1, 13.7),
             6700: (29.3, 18.6)},
    'Math': {124: (1.6, 1.6), 355: (1.6, 1.5), 775: (7.6, 1.8), 1600: (14.4, 1.7),
             6700: (26.6, 11.2)},
    'QA': {124: (8.3, 5.2), 355: (11.1, 6.6), 775: (12.6, 8.0), 1600: (18.8, 12.2),
           6700: (31.2, 27.6)}}
SCALING_GPT3 = {'LAMA': 24.5, 'Math': 14.6, 'QA': 39.2}
