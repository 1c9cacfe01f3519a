"""A real browser: headless Chromium from the system's package, with a profile of its own, driven by selenium."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=900,600",
)
DEADLINE_S = 30.0


class Chromium:
    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def go(self, url: str) -> None:
        self.driver.get(url)

    @property
    def url(self) -> str:
        return str(self.driver.current_url)

    @property
    def text(self) -> str:
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def fill(self, name: str, text: str) -> None:
        self.driver.find_element(By.NAME, name).send_keys(text)

    def press(self, text: str) -> None:
        """The button with this text; returns when another page is there."""
        before = self.driver.find_element(By.TAG_NAME, "html")
        self.driver.find_element(By.XPATH, f"//button[contains(., '{text}')]").click()
        self.until(lambda: self.driver.find_element(By.TAG_NAME, "html") != before, "another page")

    def until(self, holds: object, what: str) -> None:
        assert callable(holds)
        WebDriverWait(self.driver, DEADLINE_S, 0.1).until(lambda _: holds(), what)

    def cookies(self) -> dict[str, str]:
        return {str(each["name"]): str(each["value"]) for each in self.driver.get_cookies()}

    def run(self, script: str) -> object:
        """What a page's own script would get; a promise is awaited."""
        return self.driver.execute_script(script)


@contextmanager
def chromium(folder: Path) -> Iterator[Chromium]:
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    options.accept_insecure_certs = True  # the deployment's own authority is not the system's
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    driver = Chrome(options=options, service=ChromeService("/usr/bin/chromedriver"))
    try:
        yield Chromium(driver)
    finally:
        driver.quit()
