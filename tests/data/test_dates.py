"""Dates in URLs: the paper's heuristic for the calendar."""

import pytest

from toolformer_jax.data.dates import date_in_url


@pytest.mark.parametrize('url, date', [
  ('https://a.org/2018/03/21/title/', '2018-03-21'),
  ('https://a.org/blog/2018/3/1', '2018-03-01'),
  ('https://a.org/2018-03-21-title.html', '2018-03-21'),
  ('https://a.org/news/20180321/x', '2018-03-21'),
  ('https://a.org/news/20180321.html', '2018-03-21'),
  ('https://a.org/2018/13/40/2019-01-02', '2019-01-02'),
  ('https://a.org/2018/02/30/x', None),
  ('https://a.org/2018/03/', None),
  ('https://a.org/3018/03/21', None),
  ('https://a.org/2018/03/211', None),
  ('https://a.org/id-120180321', None),
  ('https://a.org/id-20180321', None),
  ('', None),
  (None, None),
])
def test_date_in_url(url, date):
  assert date_in_url(url) == date
