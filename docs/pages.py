"""Take the pictures of the pages, report.jpg and live.jpg, of the demo's patrol in Chromium.

Run: ./dev run python3 docs/pages.py [FOLDER]. Takes a minute: the live page plays in real time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import yaml
from PIL import Image

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / 'test'))

from browser import browser
from selenium import webdriver
from selenium.webdriver.common.by import By

from infinitevl_ros.cli.camera import PATROL_RATE
from infinitevl_ros.cli.demo import SEED
from infinitevl_ros.cli.main import main
from infinitevl_ros.cli.story import plan_questions
from infinitevl_ros.world.patrol import Patrol, story

FRAMES = 450
THRESHOLD = 0.8
WIDTH, HEIGHT = 1200, 4000  # that the report has to itself
HALF = 800  # pixels of its picture
# When to ask on the live page, in seconds, and what.
ASKED = (
    (14, 'Which room came first?'),
    (16, 'Where were you before this?'),
    (18, 'Is the light on?'),
    (20, 'Which room is this?'),
)


def film(patrol: Patrol, folder: Path) -> Path:
    path = folder / 'patrol.avi'
    codec = cv2.VideoWriter_fourcc(*'MJPG')
    writer = cv2.VideoWriter(str(path), codec, PATROL_RATE, (224, 224))
    for pixels, _ in patrol:
        writer.write(pixels[..., ::-1])
    writer.release()
    return path


def report(patrol: Patrol, video: Path, folder: Path) -> Image.Image:
    """The page's first half in light colours, beside it the second in dark ones."""
    questions = [
        {'ask': one.question, 'at': (one.frame - 1) / PATROL_RATE, 'expect': one.truth}
        for one in plan_questions(patrol)
    ]
    listed, page = folder / 'questions.yaml', folder / 'report.html'
    listed.write_text(yaml.safe_dump({'threshold': THRESHOLD, 'questions': questions}))
    main(['report', str(video), '--questions', str(listed), '-o', str(page)])
    halves = []
    with browser(WIDTH, HEIGHT) as driver:
        driver.get(page.as_uri())
        second, end = driver.execute_script(
            'return [document.querySelector(".answers").parentElement, document.body]'
            '.map((e, i) => e.getBoundingClientRect()[["top", "bottom"][i]])'
        )
        for colours, top, bottom in (('light', 0, second), ('dark', second, end)):
            shot = screenshot(driver, folder / f'{colours}.png', colours)
            # A section has a margin above; half of it belongs to either picture.
            half = shot.crop((0, max(0, top - 18), WIDTH, bottom - 18))
            halves.append(half.resize((HALF, round(half.height * HALF / WIDTH)), Image.LANCZOS))
    joined = Image.new('RGB', (2 * HALF, max(half.height for half in halves)))
    for x, half in zip((0, HALF), halves, strict=True):
        joined.paste(half.getpixel((0, 0)), (x, 0, x + HALF, joined.height))
        joined.paste(half, (x, 0))
    return joined


def live(video: Path, folder: Path) -> Image.Image:
    command = 'import sys; from infinitevl_ros.cli.main import main; sys.exit(main(sys.argv[1:]))'
    process = subprocess.Popen(
        [sys.executable, '-c', command, 'live', str(video), '--port', '0'],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with browser(1280, 930) as driver:
            driver.get(process.stdout.readline().split()[1])
            began = time.monotonic()
            for at, question in ASKED:
                time.sleep(max(0.0, began + at - time.monotonic()))
                driver.find_element(By.ID, 'question').send_keys(question)
                driver.find_element(By.ID, 'ask').click()
            time.sleep(2)
            return screenshot(driver, folder / 'live.png', 'light')
    finally:
        process.terminate()
        process.wait()


def screenshot(driver: webdriver.Chrome, path: Path, colours: str) -> Image.Image:
    features = [{'name': 'prefers-color-scheme', 'value': colours}]
    driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': features})
    driver.save_screenshot(str(path))
    return Image.open(path).convert('RGB')


def take(output: Path) -> None:
    patrol = story(SEED, FRAMES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = film(patrol, folder)
        report(patrol, video, folder).save(output / 'report.jpg', quality=88)
        live(video, folder).save(output / 'live.jpg', quality=88)


if __name__ == '__main__':
    take(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
