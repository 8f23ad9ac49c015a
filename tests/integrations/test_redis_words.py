import json
from typing import Any

import pytest
from attrs import evolve

from braze_export.answers import RateWindow
from braze_export.integrations.redis_words import Call, Heard, Lease, News

NOW = 1_700_000_000.0


def window(remaining: int | None, reset: float | None = 60.0, limit: int | None = 40) -> RateWindow:
    moment = None if reset is None else NOW + reset
    return RateWindow(limit, remaining, moment, clock=NOW, dated=True)


def told(news: News, **options: Any) -> dict[str, Any]:
    call = Call(id="p", calls=1, batch=1, news=news, limit=10, period=60.0, reserve=0.0, **options)
    words = json.loads(call.encode())
    assert isinstance(words, dict)
    return words


def test_answers_are_put_together_by_window() -> None:
    news = News()
    news.answered(Lease(3, 5.0), window(12), refused=False)
    news.answered(Lease(3, 7.0), window(9), refused=False)
    news.answered(Lease(4, 6.0), window(39, reset=120), refused=False)
    news.answered(Lease(2, 6.0), window(10, limit=None), refused=False)

    first, second = [NOW + 60, 3, 9, 7.0, 40, 3], [NOW + 120, 1, 39, 6.0, 40, 4]
    assert told(news)["told"] == [first, second]
    assert news.leases == 4


def test_of_refusals_the_one_granted_last_counts() -> None:
    news = News()
    news.answered(Lease(3, 5.0), evolve(window(0), pause=7.0), refused=True)
    news.answered(Lease(4, 7.0), window(2), refused=True)
    news.answered(Lease(3, 6.0), window(0), refused=True)
    news.answered(Lease(3, 6.0), window(None, reset=None), refused=True)

    assert told(news)["refused"] == [[0, 3, 6.0, 40, 0, 0], [NOW + 60, 4, 7.0, 40, 2, 7.0]]


def test_what_says_nothing_is_counted() -> None:
    news = News()
    news.answered(Lease(3), RateWindow(), refused=False)
    news.answered(Lease(3), window(5, reset=None), refused=False)
    news.answered(Lease(3), window(5, reset=4000), refused=False)
    news.unanswered(Lease(4))
    news.unanswered(Lease())

    words = told(news)
    assert (words["silent"], words["counted"]) == ([[3, 3]], [[-1, 1], [4, 1]])
    assert words["told"] == words["refused"] == []


def test_numbers_that_make_no_sense_are_cut() -> None:
    news = News()
    news.answered(Lease(), window(10**30, limit=10**30), refused=False)
    far = window(10**30, reset=1e9, limit=10**30)
    news.answered(Lease(), evolve(far, pause=1e9), refused=True)

    words = told(news)
    assert words["told"] == [[NOW + 60, 1, 10**9, 0, 10**9, -1]]
    assert words["refused"] == [[NOW + 3600, -1, 0, 10**9, 10**9, 3600]]


def test_of_a_long_silence_only_the_last_windows_are_told() -> None:
    news = News()
    for number in range(1, 1000):
        for refused in (False, True):
            news.answered(Lease(number), window(5, reset=number), refused=refused)
        news.answered(Lease(number), RateWindow(), refused=False)
        news.unanswered(Lease(number))

    words = told(news)
    assert [len(words[name]) for name in ("told", "counted", "silent", "refused")] == [8] * 4
    assert (words["told"][-1][0], words["counted"][-1][0]) == (NOW + 999, 999)


def test_the_clock_is_told_only_where_it_is_known() -> None:
    assert "low" not in told(News())
    words = told(News(), server=(1.5, 2.5))
    assert (words["low"], words["high"]) == (1.5, 2.5)


@pytest.mark.parametrize("text", [str, str.encode])
def test_a_reply_may_be_text_or_bytes(text: Any) -> None:
    known = Heard.read([2, 1, 7, 0, text("0.25"), text("1700000000.123456"), 40, 12, text("3")])
    unknown = Heard.read([1, 0, 7, 1, text("0.005"), text("5"), 40, text(""), text("")])

    assert known == Heard(2, 1, 7, False, 0.25, 1700000000.123456, 40, 12, 3.0)
    assert (unknown.left, unknown.resets_in) == (None, None)
    assert unknown.lease() == Lease(7, 5.0, True)
