"""Real headless Chromium for the tests of the report page; they skip where it is not installed."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MISSING = "needs Chromium: apt-get install chromium chromium-driver, and pip install selenium"


class Browser:
    """One window; what it logged and asked the network for."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path) -> None:
        self.driver.get(path.as_uri())

    def all(self, css: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", css))

    def one(self, css: str) -> Any:
        return self.driver.find_element("css selector", css)

    def texts(self, css: str) -> list[str]:
        return [element.text for element in self.all(css)]

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def emulate(self, width: int, height: int, *, dark: bool = False, mobile: bool = False) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile},
        )
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},  # else clicks miss what is still scrolling
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def console(self) -> list[str]:
        """Errors and warnings since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """URLs asked for since the last call; inlined data, and what the page's own policy stopped, left out."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        failures = [m["params"] for m in messages if m["method"] == "Network.loadingFailed"]
        stopped = {failure["requestId"] for failure in failures if failure.get("blockedReason") == "csp"}
        sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        urls = [request["request"]["url"] for request in sent if request["requestId"] not in stopped]
        return [url for url in urls if not url.startswith(("data:", "blob:"))]

    def busy(self) -> float:
        """CPU seconds of the page's main thread, where ``Performance.enable`` was told to count them."""
        metrics = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    def screenshot(self, path: Path) -> None:
        self.driver.save_screenshot(str(path))


_STARTED: list[Any] = []


@contextmanager
def chromium() -> Iterator[Browser]:
    """A window of its own, closed at the end; the browser is started once for all tests of a process."""
    if not _STARTED:
        _STARTED.append(_start())
    driver = _STARTED[0]
    first = driver.current_window_handle
    driver.switch_to.new_window("tab")
    window = Browser(driver)
    window.console(), window.requests()  # of the window before
    try:
        yield window
    finally:
        driver.close()
        driver.switch_to.window(first)


def close() -> None:
    """At the end of the session."""
    while _STARTED:
        _STARTED.pop().quit()


def _start() -> Any:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip(MISSING)
    webdriver = pytest.importorskip("selenium.webdriver", reason=MISSING)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    from selenium.webdriver.chrome.service import Service

    return webdriver.Chrome(options=options, service=Service(executable_path=driver))
