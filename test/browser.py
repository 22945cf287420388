"""A headless Chromium for tests of pages."""

import contextlib
import json
import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver


@contextlib.contextmanager
def browser(width: int, height: int) -> Iterator[webdriver.Chrome]:
    """A driver whose page is `width` x `height` pixels; see `requested` and `complaints`."""
    chromium, chromedriver = shutil.which('chromium'), shutil.which('chromedriver')
    if not chromium or not chromedriver:
        pytest.skip('chromium is not installed (apt install chromium chromium-driver)')
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(chromedriver))
    try:
        # A window cannot be narrower than 500 pixels; what a page takes for its screen can.
        size = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': False}
        driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
        yield driver
    finally:
        driver.quit()


def requested(driver: webdriver.Chrome) -> list[str]:
    """The addresses of everything asked for since this was last called."""
    events = [json.loads(entry['message'])['message'] for entry in driver.get_log('performance')]
    return [
        event['params']['request']['url']
        for event in events
        if event['method'] == 'Network.requestWillBeSent'
    ]


def complaints(driver: webdriver.Chrome) -> list[str]:
    """What the page wrote to the console at level warning or above since this was last called."""
    return [
        entry['message']
        for entry in driver.get_log('browser')
        if entry['level'] in ('WARNING', 'SEVERE')
    ]
