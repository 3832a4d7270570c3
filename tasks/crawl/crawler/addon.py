"""One Scrapy add-on that sets everything which must hold for crawling addresses that users give.

Scrapy's defaults are a developer's: a remote control server that executes code, a telnet console, handlers for
`file:` and `ftp:`, proxies from the environment, a gigabyte per response, certificates unchecked, robots.txt ignored.
All of it is decided here and nowhere else, at a priority that spiders cannot override.
"""

from __future__ import annotations

from typing import Any, Final

from scrapy.settings import BaseSettings

from tasks.crawl.crawler.guard import ALLOWED_HOSTS_SETTING, PORTS_SETTING
from tasks.crawl.crawler.protocol import Start

_PACKAGE: Final = "tasks.crawl.crawler"

SAFE_SETTINGS: Final[dict[str, Any]] = {
    # nothing listens, nothing is written to disk
    "REMOTE_CONTROL_ENABLED": False,
    "TELNETCONSOLE_ENABLED": False,
    "HTTPCACHE_ENABLED": False,
    "FEEDS": {},
    "ITEM_PIPELINES": {},
    "JOBDIR": None,
    # only http and https, by the handler that asks the guarded resolver
    "DOWNLOAD_HANDLERS": {
        "data": None,
        "file": None,
        "ftp": None,
        "s3": None,
        "http": "scrapy.core.downloader.handlers.http11.HTTP11DownloadHandler",
        "https": "scrapy.core.downloader.handlers.http11.HTTP11DownloadHandler",
    },
    "HTTPPROXY_ENABLED": False,
    "DOWNLOAD_VERIFY_CERTIFICATES": True,
    "DOWNLOAD_WARNSIZE": 0,
    "REDIRECT_MAX_TIMES": 10,
    "METAREFRESH_MAXDELAY": 2,
    "COOKIES_ENABLED": True,
    "AUTOTHROTTLE_ENABLED": True,
    "RETRY_GIVE_UP_LOG_LEVEL": "DEBUG",
    "RETRY_HTTP_CODES": [408, 429, 500, 502, 503, 504, 522, 524],
    # the frontier is the worker's
    "SCHEDULER": f"{_PACKAGE}.scheduler.LeaseScheduler",
    "DOWNLOADER_MIDDLEWARES": {
        f"{_PACKAGE}.guard.GuardMiddleware": 10,
        "scrapy.downloadermiddlewares.offsite.OffsiteMiddleware": None,
        "scrapy.downloadermiddlewares.robotstxt.RobotsTxtMiddleware": None,
        f"{_PACKAGE}.politeness.ReportingRobots": 100,
        f"{_PACKAGE}.politeness.RobotsStatus": 540,
        "scrapy.downloadermiddlewares.retry.RetryMiddleware": None,
        f"{_PACKAGE}.politeness.PoliteRetry": 550,
    },
    "SPIDER_MIDDLEWARES": {
        # pages leave through `pages.PageRunner`; only the status check is wanted
        "scrapy.spidermiddlewares.depth.DepthMiddleware": None,
        "scrapy.spidermiddlewares.start.StartSpiderMiddleware": None,
        "scrapy.spidermiddlewares.urllength.UrlLengthMiddleware": None,
        "scrapy.spidermiddlewares.metacopy.MetaCopyDetectionMiddleware": None,
    },
    "EXTENSIONS": {
        "scrapy.extensions.logstats.LogStats": None,
        "scrapy.extensions.feedexport.FeedExporter": None,
        "scrapy.extensions.spiderstate.SpiderState": None,
        "scrapy.extensions.closespider.CloseSpider": None,
    },
    "CONCURRENT_ITEMS": 1,  # Scrapy starts so many tasks for each page, and no item ever reaches them
    "WARN_ON_GENERATOR_RETURN_VALUE": False,
    "STATS_DUMP": False,
    "LOG_LEVEL": "WARNING",
    # it reads a peak that a process inherits from whoever started it; `session` looks at the present
    "MEMUSAGE_ENABLED": False,
}


class SafeCrawling:
    """The add-on itself."""

    def update_settings(self, settings: BaseSettings) -> None:
        """Overrule whatever a spider set for itself."""
        for name, value in SAFE_SETTINGS.items():
            settings.set(name, value, priority="cmdline")


def settings_for(start: Start) -> dict[str, Any]:
    """The settings of one run: the add-on, and what the worker decides."""
    throttle = start.throttle
    return {
        "ADDONS": {SafeCrawling: 0},
        # Scrapy reads these before add-ons are applied
        "LOG_INSTALL_ROOT_HANDLER": False,
        "TWISTED_DNS_RESOLVER": f"{_PACKAGE}.guard.GuardedResolver",
        ALLOWED_HOSTS_SETTING: list(start.allowed_hosts),
        PORTS_SETTING: list(start.ports),
        "USER_AGENT": start.user_agent,
        "ROBOTSTXT_OBEY": start.obey_robots,
        # the product token, which is what robots.txt files name (RFC 9309 §2.2.1)
        "ROBOTSTXT_USER_AGENT": start.user_agent.split("/", 1)[0].strip() or "*",
        "CONCURRENT_REQUESTS": throttle.concurrency,
        "CONCURRENT_REQUESTS_PER_DOMAIN": throttle.concurrency_per_host,
        "DOWNLOAD_DELAY": throttle.min_delay_seconds,
        "AUTOTHROTTLE_START_DELAY": throttle.start_delay_seconds,
        "AUTOTHROTTLE_MAX_DELAY": throttle.max_delay_seconds,
        "AUTOTHROTTLE_TARGET_CONCURRENCY": throttle.target_concurrency,
        "DOWNLOAD_TIMEOUT": throttle.timeout_seconds,
        "DOWNLOAD_MAXSIZE": throttle.max_response_bytes,
        "RETRY_TIMES": throttle.retries,
    }
