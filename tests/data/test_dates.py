"""Dates of documents: in fields, and in URLs by the paper's heuristic for the calendar."""

import datetime

import hypothesis
import pytest
from hypothesis import strategies

from toolformer_jax.data.dates import date_in_url, document_date


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
  ('https://a.org/world/2018/mar/21/story', '2018-03-21'),
  ('https://a.org/2015/August/04/title', '2015-08-04'),
  ('https://a.org/2015_08_04_title.html', '2015-08-04'),
  ('https://a.org/room/12?checkin=2021-12-24', None),
  ('https://a.org/room#2021-12-24', None),
  ('https://a.org/changes-in-version-2021-07-01-of-it', None),
  ('https://a.org/2099/01/01/x', None),
  ('https://a.org/1920/10/12/x.jpg', None),
  ('https://a.org/resize/2000/10/12/x', None),
  ('https://a.org/2018/03/21.html', '2018-03-21'),
  ('https://a.org/2018/03/21-things-to-do', None),
  ('https://a.org/2018/03/10-best-cars/', None),
  ('https://a.org/2018/03/21st-century-art/', None),
  ('https://a.org/api/2019-05-01/operations', None),
  ('https://a.org/rest/v2/2019-05-01/x', None),
  ('https://[a.org/2018/03/21', None),
  ('', None),
  (None, None),
])
def test_date_in_url(url, date):
  assert date_in_url(url) == date


def test_a_crawl_is_later_than_its_pages():
  assert date_in_url('https://a.org/2018/03/21', latest='2018-03-20') is None
  assert date_in_url('https://a.org/2018/03/21', latest='2018-03-21') == '2018-03-21'


@pytest.mark.parametrize('fields, date', [
  ({'metadata': {'url': 'https://a.org/x', 'date': '2013-05-18T05:48:54Z'}}, '2013-05-18'),
  ({'meta': {'timestamp': '2014-06-07T00:00:00'}}, '2014-06-07'),
  ({'publish_date': '2018-04-06'}, '2018-04-06'),
  ({'datePublished': 'April 6, 2018'}, '2018-04-06'),
  ({'date': '2014/06/07'}, '2014-06-07'),
  ({'date': '6 Apr 2018'}, '2018-04-06'),
  ({'date': 'Fri, 06 Apr 2018 10:00:00 GMT'}, '2018-04-06'),
  ({'WARC-Date': '2018-04-06T00:00:00Z'}, '2018-04-06'),
  ({'date': '25/04/2018'}, '2018-04-25'),
  ({'date': '03/04/2018'}, None),  # in March or in April
  ({'date': 'April 2018'}, None),
  ({'date': '2018'}, None),
  ({'date': '10:30'}, None),
  ({'date': 'x' * 1000}, None),
  ({'date': {'year': 2018}}, None),
  # The address is read before the date of a crawl, and after the date of publication.
  ({'url': 'https://a.org/2017/01/02/x', 'timestamp': '2019-04-25T12:57:54Z'}, '2017-01-02'),
  ({'url': 'https://a.org/2017/01/02/x', 'published': '2017-01-03'}, '2017-01-03'),
  ({'url': 'https://a.org/2020/01/02/x', 'timestamp': '2019-04-25T12:57:54Z'}, '2019-04-25'),
  # Dates that no document can have.
  ({'url': 'https://a.org/2017/01/02/x', 'published': '3018-01-01'}, '2017-01-02'),
  ({'publish_date': '2019-09-09', 'timestamp': '2019-04-01T00:00:00Z'}, '2019-04-01'),
  ({'published': '2019-04-02', 'date': '2019-04-01'}, '2019-04-02'),
  ({'date': '9999-12-31'}, None),
  ({'date': '2099-01-01'}, None),
  ({'date': '0001-01-01'}, None),
  ({'date': '1970-01-01T00:00:00Z'}, None),
  ({'date': '1895-03-04'}, '1895-03-04'),  # an old newspaper
  # Values that are no texts.
  ({'timestamp': datetime.datetime(2019, 4, 25, 12, 57)}, '2019-04-25'),
  ({'date': datetime.date(2019, 4, 25)}, '2019-04-25'),
  ({'timestamp': 1521590400}, '2018-03-21'),
  ({'timestamp': 1521590400000}, '2018-03-21'),
  ({'created': 1521590400.5}, '2018-03-21'),
  ({'created': '1521590400'}, '2018-03-21'),
  ({'date': 20180321}, '2018-03-21'),
  ({'date': 'Mar 21 10:00:00 PST 2018'}, '2018-03-21'),
  ({'date': 0}, None),
  ({'date': float('nan')}, None),
  ({'date': 1e300}, None),
  ({'date': True}, None),
  ({}, None),
])
def test_document_date(fields, date):
  assert document_date(fields) == date


@hypothesis.given(
    strategies.dates(datetime.date(1991, 1, 1), datetime.date.today()), strategies.sampled_from(
    ['%Y-%m-%d', '%Y/%m/%d', '%d %B %Y', '%B %d, %Y', '%a, %d %b %Y', '%Y%m%d']))
def test_dates_are_read_as_they_are_written(date, spelling):
  assert document_date({'date': date.strftime(spelling)}) == date.isoformat()


@hypothesis.given(strategies.text())
def test_any_text_is_a_date_or_none(text):
  for date in (document_date({'date': text}), date_in_url(f'https://a.org/{text}')):
    assert date is None or datetime.date.fromisoformat(date)
