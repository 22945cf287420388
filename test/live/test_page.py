"""The page in a browser, before an engine of its own and before a running node."""

import time

import pytest
from browser import browser, complaints, requested
from processes import camera_command, live, node_command, patrol_video, started
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from infinitevl_ros.model.default import default_checkpoint
from infinitevl_ros.world.scene import ROOMS

TIMEOUT = 20.0
UNKNOWN = '\N{EN DASH}'
HOSTILE = '<img src=x onerror="document.title=1"><b>bold</b>'


class Page:
    """What a person sees and does."""

    def __init__(self, driver, url, width=1280, height=900):
        self.driver = driver
        self.resize(width, height)
        driver.get(url)

    def resize(self, width, height):
        size = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': False}
        self.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)

    def text(self, id):
        return self.driver.find_element(By.ID, id).text

    def wait(self, condition, what):
        deadline = time.monotonic() + TIMEOUT
        while not (found := condition()):
            assert time.monotonic() < deadline, f'{what}: the page says {self.text("message")}'
            time.sleep(0.05)
        return found

    def picture(self):
        """The picture's address, once it is loaded and shown."""
        image = self.driver.find_element(By.ID, 'picture')
        loaded = self.driver.execute_script('return arguments[0].naturalWidth', image)
        return image.is_displayed() and loaded > 1 and image.get_attribute('src')

    def wait_streaming(self):
        first = self.wait(self.picture, 'a picture')
        self.wait(lambda: self.picture() != first, 'another picture')
        self.wait(lambda: self.text('message') == 'streaming', 'the state')
        self.wait(lambda: self.text('frames') not in (UNKNOWN, '0'), 'frames in memory')

    def ask(self, question, click=False):
        """Type a question, wait for its answer; returns question, answer and what stands below."""
        self.driver.find_element(By.ID, 'question').send_keys(question)
        if click:
            self.driver.find_element(By.ID, 'ask').click()
        else:
            self.driver.find_element(By.ID, 'question').send_keys(Keys.ENTER)
        entry = '#answers li:first-child'
        done = f'{entry}[aria-busy="false"]'
        self.wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, done), 'an answer')
        parts = ('.question', '.answer', '.about')
        return [
            self.driver.find_element(By.CSS_SELECTOR, f'{entry} {part}').text for part in parts
        ]

    def is_as_wide_as_its_window(self):
        script = 'return [document.documentElement.scrollWidth, window.innerWidth]'
        width, room = self.driver.execute_script(script)
        return width <= room


@pytest.fixture(scope='module')
def driver():
    with browser(1280, 900) as driver:
        yield driver


@pytest.fixture(scope='module')
def patrol(tmp_path_factory):
    """A video, and the names of the rooms in it."""
    path = tmp_path_factory.mktemp('live') / 'patrol.mp4'
    return path, patrol_video(path, seconds=12)


def test_a_file_is_watched_and_asked_about(driver, patrol):
    video, rooms = patrol
    with live(video, '--loop') as server:
        page = Page(driver, server.url)
        page.wait_streaming()
        question, answer, about = page.ask('Which room is this?')
        assert question == 'Which room is this?'
        assert answer in rooms
        assert 'frames' in about
        assert page.ask(HOSTILE, click=True)[0] == HOSTILE
        assert not driver.find_elements(By.CSS_SELECTOR, '#answers b, #answers img')
        assert driver.title == 'patrol.mp4 · InfiniteVL live'
        assert len(driver.find_elements(By.CSS_SELECTOR, '#answers li')) == 2
        caption = page.wait(lambda: page.text('now'), 'a caption')
        assert caption in page.text('captions')
        assert page.is_as_wide_as_its_window()
        assert complaints(driver) == []
        hosts = {url.split('/')[2] for url in requested(driver) if url.startswith('http')}
        assert hosts == {f'127.0.0.1:{server.port}'}

        # An earlier question is put into the box again, and a phone has room for everything.
        driver.find_element(By.CSS_SELECTOR, '#answers li:last-child .question').click()
        assert driver.switch_to.active_element.get_attribute('value') == 'Which room is this?'
        page.resize(390, 844)
        assert page.is_as_wide_as_its_window()
        bottom = driver.find_element(By.ID, 'ask').rect
        assert bottom['x'] + bottom['width'] <= 390

        # It comes back by itself when the server does.
        assert server.end()[0] == 130
        page.wait(lambda: 'no connection' in page.text('message'), 'a lost connection')
        assert page.ask('Anyone?')[2] == 'no answer: no connection to the server'
        before = page.picture()
        with live(video, '--loop', port=server.port):
            page.wait(lambda: page.text('message') == 'streaming', 'to be connected again')
            page.wait(lambda: page.picture() != before, 'a new picture')
            # What is not seen holds no connection, and what is seen again is shown again.
            hide(driver, True)
            time.sleep(0.3)
            before = page.picture()
            time.sleep(0.5)
            assert page.picture() == before
            hide(driver, False)
            page.wait(lambda: page.picture() != before, 'a picture after coming back')


def hide(driver, hidden):
    """As a browser does with a tab behind another."""
    driver.execute_script(
        "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))",
        hidden,
    )


def test_an_answer_is_shown_as_it_comes_and_can_be_stopped(driver, patrol, checkpoint):
    with live(patrol[0], '--model', checkpoint, '--loop') as server:
        page = Page(driver, server.url, 390, 844)
        page.wait_streaming()
        # Sees every change of the page: the answers of this model are over in less than a second.
        driver.execute_script(
            'window.seen = [];'
            'new MutationObserver(() => {'
            "  const entry = document.querySelector('#answers li');"
            "  if (entry) seen.push([entry.querySelector('.answer').textContent,"
            "                        entry.getAttribute('aria-busy')]);"
            '}).observe(document.body, {subtree: true, childList: true, attributes: true,'
            '                           characterData: true})'
        )
        _, answer, _ = page.ask('What do you see?')
        seen = driver.execute_script('return seen')
        growing = [text for text, busy in seen if busy == 'true' and text]
        assert len(set(growing)) > 1
        assert all(answer.startswith(text.rstrip()) for text in growing[:5])
        assert seen[-1][1] == 'false'

        driver.execute_script(
            "document.getElementById('question').value = 'And now?';"
            "document.getElementById('form').requestSubmit();"
            "document.getElementById('stop').click()"
        )
        about = page.wait(
            lambda: (
                driver.find_element(By.CSS_SELECTOR, '#answers .about').text != 'answering'
                and driver.find_element(By.CSS_SELECTOR, '#answers .about').text
            ),
            'the end of an answer',
        )
        assert about == 'stopped'
        assert driver.find_element(By.ID, 'ask').is_displayed()


def test_a_running_node_is_watched_and_asked_about(driver):
    with live() as server:
        page = Page(driver, server.url)
        # It waits for a node that is still to come.
        page.wait(lambda: page.text('message') == 'no node at /infinitevl_node', 'no node')
        assert 'no node at /infinitevl_node' in page.ask('Anyone?')[2]
        complaints(driver)  # of the status of that refusal
        node = node_command(model=default_checkpoint(), caption_period=1.0)
        with started(*node), started(*camera_command(subscribers=2)):
            page.wait_streaming()
            assert page.ask('Which room is this?')[1] in ROOMS
            assert page.ask('Is the light on?', click=True)[1] in ('yes', 'no')
            caption = page.wait(lambda: page.text('now'), 'a caption')
            assert caption in page.text('captions')
            # The first second that it is told for may have begun before the camera.
            page.wait(lambda: float(page.text('rate').strip(UNKNOWN) or 0) > 5, 'the rate')
            page.wait(lambda: page.text('seconds').endswith(' s'), "the last answer's time")
            assert page.text('model') == 'tiny'
            assert page.text('name') == '/infinitevl_node'
            assert complaints(driver) == []
        code, seconds = server.end()
        assert code == 130
        assert seconds < 2
