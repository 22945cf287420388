'use strict';

const MOST_ENTRIES = 50; // captions, and questions, that stay on the page
const RETRY = 2000; // ms until a server that turned us away is tried again
const DAYS = 864e5; // ms; later stamps are times of day, earlier ones count from a stream's start

const at = (id) => document.getElementById(id);

/** A new element with a class and text; text is only ever text. */
function element(tag, kind, text = '') {
  const made = document.createElement(tag);
  made.className = kind;
  made.textContent = text;
  return made;
}

function keepShort(list) {
  while (list.children.length > MOST_ENTRIES) list.lastElementChild.remove();
}

// What the stream shows

let events = null;
let retry = null;

function connect() {
  disconnect();
  events = new EventSource('events');
  const on = (name, handle) => events.addEventListener(name, (e) => handle(JSON.parse(e.data)));
  events.addEventListener('picture', (event) => showPicture(event.data));
  on('hello', showHello);
  on('caption', showCaption);
  on('state', showState);
  events.onerror = () => {
    showMessage('no connection to the server; trying again', 'error');
    // The browser tries again by itself unless the server answered with an error.
    if (events.readyState === EventSource.CLOSED) retry = setTimeout(connect, RETRY);
  };
}

function disconnect() {
  clearTimeout(retry);
  if (events) events.close();
  events = null;
}

function showHello({ name, longest }) {
  at('name').textContent = name;
  document.title = `${name} · InfiniteVL live`;
  at('question').maxLength = longest;
  // Those that the server has kept follow.
  at('captions').replaceChildren();
  at('no-captions').hidden = false;
}

at('picture').addEventListener('load', ({ target }) => {
  target.style.setProperty('--ratio', target.naturalWidth / target.naturalHeight);
});

function showPicture(base64) {
  at('picture').src = `data:image/jpeg;base64,${base64}`;
  at('picture').hidden = false;
  at('blank').hidden = true;
}

function showCaption({ stamp, text }) {
  at('no-captions').hidden = true;
  at('now').textContent = text;
  const entry = element('li', '');
  entry.append(element('time', '', timeOf(stamp)), element('span', '', text));
  at('captions').prepend(entry);
  keepShort(at('captions'));
}

function timeOf(stamp) {
  if (stamp * 1e3 > 365 * DAYS) return new Date(stamp * 1e3).toLocaleTimeString();
  const whole = Math.floor(stamp);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}

function showMessage(message, level) {
  at('message').textContent = message;
  at('state').dataset.level = level;
}

function showState(state) {
  showMessage(state.message, state.level);
  const shown = (value, format) => (value === null ? '–' : format(value));
  at('rate').textContent = shown(state.frames_per_second, (rate) => rate.toFixed(1));
  at('frames').textContent = shown(state.frames, (frames) => frames.toLocaleString());
  at('seconds').textContent = shown(state.answer_seconds, duration);
  at('model').textContent = shown(state.model, String);
}

function duration(seconds) {
  return `${seconds.toFixed(2)} s`;
}

// A browser opens few connections to a server: tabs that nobody sees hold none.
document.addEventListener('visibilitychange', () => (document.hidden ? disconnect() : connect()));
if (!document.hidden) connect();

// Questions

let asking = null; // aborts the question under way

at('form').addEventListener('submit', (event) => {
  event.preventDefault();
  const question = at('question').value.trim();
  if (!question || asking) return;
  at('question').value = '';
  ask(question);
});
at('stop').addEventListener('click', () => asking && asking.abort());

async function ask(question) {
  const entry = showQuestion(question);
  asking = new AbortController();
  showAsking(true);
  try {
    await answer(question, entry, asking.signal);
  } catch (error) {
    const stopped = error.name === 'AbortError';
    // This is how a browser says that it reaches nobody.
    const reason = error instanceof TypeError ? 'no connection to the server' : error.message;
    finish(entry, stopped ? 'stopped' : `no answer: ${reason}`, !stopped);
  }
  asking = null;
  showAsking(false);
}

/** Fills an entry with the answer as it comes; throws when there is none. */
async function answer(question, entry, signal) {
  const response = await fetch('ask', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ question }),
    signal,
  });
  if (!response.ok) {
    const body = await response.json().catch(() => null);
    throw new Error(body ? body.error.message : `the server says ${response.status}`);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const text = entry.querySelector('.answer');
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error('the connection ended');
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines.map((each) => JSON.parse(each))) {
      if (line.error) throw new Error(line.error.message);
      // At the end comes all of it: pieces may have been lost on their way over ROS.
      text.textContent = line.done ? line.done.text : text.textContent + line.text;
      if (line.done) {
        const seen = `${line.done.frames.toLocaleString()} frames`;
        return finish(entry, `${duration(line.done.seconds)} · after ${seen}`, false);
      }
    }
  }
}

function showQuestion(question) {
  const entry = element('li', '');
  const button = element('button', 'question', question);
  button.type = 'button';
  button.title = 'Put into the box again';
  button.addEventListener('click', () => {
    at('question').value = question;
    at('question').focus();
  });
  entry.append(button, element('p', 'answer'), element('p', 'about', 'answering'));
  entry.setAttribute('aria-busy', 'true');
  at('answers').prepend(entry);
  keepShort(at('answers'));
  at('hint').hidden = true;
  return entry;
}

function finish(entry, about, refused) {
  entry.setAttribute('aria-busy', 'false');
  entry.classList.toggle('refused', refused);
  entry.querySelector('.about').textContent = about;
}

function showAsking(busy) {
  at('ask').hidden = busy;
  at('stop').hidden = !busy;
}
