"""StreamingEngine: frames into memories, questions on branches of them."""

from __future__ import annotations

import operator
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..model import decoder, vision
from ..model.checkpoint import load_checkpoint, read_json
from ..model.config import CheckpointError
from ..model.state import StreamState
from ..model.weights import Weights
from .memory import VisualMemory
from .prompt import Prompt, TextStream

# The published streaming demo's; a checkpoint may name its own in preprocessor_config.json.
DEFAULT_FRAME_SIZE = (448, 448)
CAPTION_PROMPT = 'Describe what happens in the video.'
MAX_QUESTION_TOKENS = 2048
# Far more than any such question has: looked at before the tokenizer spends time on it.
MAX_QUESTION_CHARACTERS = 32768
# Stamps further apart are a change of clock or a pause, not time that the stream has seen.
LONGEST_GAP = 3600 * 1_000_000_000
# Sampling colder than this overflows and is greedy in all but name.
MIN_TEMPERATURE = 1e-3
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn: greedy at temperature 0, else by temperature and nucleus `top_p`."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f'max_tokens is {self.max_tokens}, expected at least 1')
        if not 0.0 <= self.temperature < float('inf'):
            raise ValueError(f'temperature is {self.temperature}, expected 0 or more')
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f'top_p is {self.top_p}, expected more than 0 and at most 1')
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f'seed is {self.seed}, expected 0 to 2**63 - 1')


class StreamingEngine:
    """A model on a device, with the scratch memories that its answers are decoded on.

    Every method runs on the caller's thread, and only one thread may call at a time: a live robot
    hands the engine to a Scheduler, a notebook calls it directly.
    """

    def __init__(
        self,
        weights: Weights,
        prompt: Prompt,
        frame_size: tuple[int, int] = DEFAULT_FRAME_SIZE,
        name: str = 'model',
        branches: int = 2,
    ):
        """`frame_size` is (height, width) in pixels; `branches` limits the answers under way."""
        config = weights.config.vision
        unit = config.patch_size * config.spatial_merge_size
        if any(side < unit or side % unit for side in frame_size):
            raise ValueError(f'frame_size is {frame_size}, expected multiples of {unit} pixels')
        self.weights, self.prompt = weights, prompt
        self.frame_size, self.name = tuple(frame_size), name
        self._grid = tuple(side // config.patch_size for side in frame_size)
        rows, columns = (side // unit for side in frame_size)
        self.tokens_per_frame = rows * columns
        with torch.no_grad():
            cells = torch.arange(rows * columns, device=weights.device)
            # Row and column of each token; the time is added to the first axis.
            self._cells = torch.stack((torch.zeros_like(cells), cells // columns, cells % columns))
            self._primed = self._new_state()
            self._prefill(self._primed, prompt.header)
            self._primed['origin'].copy_(self._primed['largest'] + 1)
            self._free = [self.new_memory() for _ in range(branches)]

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str = 'cpu',
        dtype: torch.dtype | None = None,
        frame_size: tuple[int, int] | None = None,
        branches: int = 2,
    ) -> StreamingEngine:
        """Load a checkpoint folder.

        `dtype` defaults to float32 on the CPU and bfloat16 elsewhere; `frame_size` (height, width)
        to the checkpoint's own, else 448 x 448. Raises CheckpointError, or ValueError for a
        device or frame size that cannot be used.
        """
        folder = Path(path).expanduser()
        try:
            torch.ones(1, device=device).item()
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f'device "{device}" cannot be used: {error}') from None
        if dtype is None:
            dtype = torch.float32 if torch.device(device).type == 'cpu' else torch.bfloat16
        with torch.no_grad():
            weights = load_checkpoint(folder, device, dtype)
        prompt = Prompt(folder, weights.config)
        size = frame_size or _frame_size(folder)
        return cls(weights, prompt, size, folder.resolve().name, branches)

    @torch.no_grad()
    def new_memory(self) -> VisualMemory:
        """An empty memory for one camera."""
        return VisualMemory(
            self._new_state(),
            self._primed,
            self.name,
            self.weights.fingerprint,
            self.frame_size,
        )

    @torch.no_grad()
    def ingest(self, memory: VisualMemory, frame: np.ndarray, stamp: int) -> None:
        """Take a frame, RGB uint8 [height, width, 3] of any size, into `memory`.

        `stamp` is its time in nanoseconds. Time in the memory goes on by the difference to the
        frame before; a jump back, or of more than an hour, counts as none. Raises ValueError for
        anything that is not such a frame; the memory is then as it was. Should the device fail in
        the middle of a frame, the memory is reset before the error is raised.
        """
        self._check_own(memory)
        stamp = operator.index(stamp)
        frame = np.asarray(frame)
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise ValueError(
                f'a frame must be RGB uint8 [height, width, 3], found {frame.dtype} '
                f'{list(frame.shape)}'
            )
        pixels = torch.from_numpy(np.require(frame, requirements=['C', 'W']))
        pixels = pixels.to(self.weights.device)
        pixels = vision.resize(pixels, self.frame_size)
        patches = vision.patchify(pixels, self.weights.config.vision, self.weights.dtype)
        tokens = vision.encode(self.weights, patches[None], self._grid)
        gap = 0 if memory.newest_stamp is None else stamp - memory.newest_stamp
        elapsed = memory.elapsed + (gap if 0 <= gap <= LONGEST_GAP else 0)
        try:
            self._append_frame(memory.state, tokens, elapsed // NANOSECONDS)
        except BaseException:
            memory.reset()  # some layers have the frame and some do not
            raise
        memory.frames += 1
        memory.elapsed = elapsed
        memory.newest_stamp = stamp
        if memory.first_stamp is None:
            memory.first_stamp = stamp

    def ask(self, memory: VisualMemory, question: str, sampling: Sampling | None = None) -> Answer:
        """Ask about all that `memory` has seen up to now; iterate over the answer to get its text.

        The answer works on a branch: `memory` may take more frames meanwhile, and never learns of
        the question. Raises ValueError for an empty or overlong question or an empty memory,
        RuntimeError when as many answers are open as the engine has branches.
        """
        self._check_own(memory)
        if not question.strip():
            raise ValueError('the question is empty')
        if not memory.frames:
            raise ValueError('no frame seen yet')
        if len(question) > MAX_QUESTION_CHARACTERS:
            raise ValueError(
                f'the question is {len(question)} characters long, at most '
                f'{MAX_QUESTION_CHARACTERS} fit'
            )
        tokens = self.prompt.question(question)
        if len(tokens) > MAX_QUESTION_TOKENS:
            raise ValueError(
                f'the question is {len(tokens)} tokens long, at most {MAX_QUESTION_TOKENS} fit'
            )
        if not self._free:
            raise RuntimeError('too many open answers: finish or close one first')
        branch = self._free.pop()
        with torch.no_grad():
            branch.copy_(memory)
        return Answer(self, branch, tokens, sampling or Sampling())

    def caption(
        self, memory: VisualMemory, prompt: str = CAPTION_PROMPT, sampling: Sampling | None = None
    ) -> Answer:
        """Say what the stream shows: a question that nobody has to ask."""
        return self.ask(memory, prompt, sampling)

    def release(self, branch: VisualMemory) -> None:
        """Take back the branch of a finished answer."""
        self._free.append(branch)

    @torch.no_grad()
    def next_scores(self, branch: VisualMemory, tokens: list[int]) -> Tensor:
        """Append text tokens to a branch; scores [vocabulary] of the token that comes next."""
        hidden = self._prefill(branch.state, tokens)
        return decoder.logits(self.weights, hidden[0, -1])

    def _check_own(self, memory: VisualMemory) -> None:
        if not memory.is_of(self._primed):
            raise ValueError('this memory was made by another engine')

    def _append_frame(self, state: StreamState, tokens: Tensor, seconds: int) -> None:
        """Image tokens [1, N, D] of a frame that is `seconds` into the stream."""
        # Whole seconds, as the published demo steps it.
        state['time'].fill_(seconds * self.weights.config.vision.tokens_per_second)
        positions = self._cells.clone()
        positions[0] += state['time']
        decoder.decode(self.weights, tokens, (positions + state['origin'])[None], state)

    def _new_state(self) -> StreamState:
        return StreamState(
            self.weights.config, self.tokens_per_frame, self.weights.device, self.weights.dtype
        )

    def _prefill(self, state: StreamState, tokens: list[int]) -> Tensor:
        """Text: the same next position on all three axes. Returns normed outputs [1, T, D]."""
        ids = torch.tensor([tokens], device=self.weights.device)
        steps = torch.arange(1, len(tokens) + 1, device=self.weights.device)
        positions = (state['largest'] + steps).expand(1, 3, -1)
        return decoder.decode(self.weights, decoder.embed(self.weights, ids), positions, state)


class Answer:
    """An answer in the making. Iterating yields pieces of text; `close` ends it early.

    `text` is what has been said; `tokens` how many tokens that took; `finish` is '' while it goes
    on, then 'end', 'length' or 'closed'. `frames`, `first_stamp` and `newest_stamp` tell what it
    has seen.
    """

    def __init__(
        self, engine: StreamingEngine, branch: VisualMemory, prompt: list[int], sampling: Sampling
    ):
        self._engine, self._branch = engine, branch
        self._next = prompt
        self._sampling = sampling
        self._stream = TextStream(engine.prompt)
        self._random: torch.Generator | None = None
        if sampling.temperature > MIN_TEMPERATURE:
            self._random = torch.Generator(engine.weights.device)
            if sampling.seed is None:
                self._random.seed()
            else:
                self._random.manual_seed(sampling.seed)
        self._began = time.monotonic()
        self.tokens = 0
        self.seconds = 0.0
        self.finish = ''
        self.frames = branch.frames
        self.first_stamp, self.newest_stamp = branch.first_stamp, branch.newest_stamp

    @property
    def text(self) -> str:
        return self._stream.text

    def __iter__(self) -> Iterator[str]:
        while not self.finish:
            piece = self.step()
            if piece:
                yield piece

    def step(self) -> str:
        """Take in a frame's worth of the question, or decode one token.

        Returns the text that this completes, often none. Does nothing once finished.
        """
        if self.finish:
            return ''
        part = self._engine.tokens_per_frame
        try:
            scores = self._engine.next_scores(self._branch, self._next[:part])
            self._next = self._next[part:]
            if self._next:
                return ''
            token = _draw(scores, self._sampling, self._random)
        except BaseException:
            self.close()
            raise
        if token in self._engine.weights.config.eos_token_ids:
            return self._end('end')
        self.tokens += 1
        self._next = [token]
        piece = self._stream.push(token)
        if self.tokens >= self._sampling.max_tokens:
            return piece + self._end('length')
        return piece

    def close(self) -> None:
        """Stop here and free the branch. Does nothing to a finished answer."""
        if not self.finish:
            self._end('closed')

    def __del__(self) -> None:
        self.close()

    def _end(self, reason: str) -> str:
        self.finish = reason
        self.seconds = time.monotonic() - self._began
        self._engine.release(self._branch)
        return self._stream.finish()


def _draw(scores: Tensor, sampling: Sampling, random: torch.Generator | None) -> int:
    if random is None:
        return int(scores.argmax())
    chance = torch.softmax(scores / sampling.temperature, -1)
    chance, order = chance.sort(descending=True)
    # The smallest set of tokens that holds top_p of the probability, never empty.
    outside = chance.cumsum(-1) - chance >= sampling.top_p
    chance = chance.masked_fill(outside, 0.0)
    return int(order[torch.multinomial(chance, 1, generator=random)])


def _frame_size(folder: Path) -> tuple[int, int]:
    file = folder / 'preprocessor_config.json'
    if not file.is_file():
        return DEFAULT_FRAME_SIZE
    size = read_json(file).get('size')
    if not isinstance(size, dict) or not {'height', 'width'} <= size.keys():
        return DEFAULT_FRAME_SIZE
    try:
        return int(size['height']), int(size['width'])
    except (TypeError, ValueError):
        raise CheckpointError(f'{file}: size {size} is not a height and a width') from None
