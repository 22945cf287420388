"""StreamingEngine: frames into memories, questions on branches of them."""

from __future__ import annotations

import functools
import operator
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..model import kernels
from ..model.checkpoint import Progress, load_checkpoint, quietly, read_json
from ..model.config import CheckpointError
from ..model.kernels import plain
from ..model.weights import Weights
from .grammar import JsonGrammar, JsonMatcher, read_schema
from .memory import VisualMemory
from .options import Options
from .prompt import Prompt, TextStream, json_question
from .runner import Decoding, Picture, PlainRunner, Runner
from .sampling import Sampling
from .steps import Geometry

# The published streaming demo's; a checkpoint may name its own in preprocessor_config.json.
DEFAULT_FRAME_SIZE = (448, 448)
CAPTION_PROMPT = 'Describe what happens in the video.'
MAX_QUESTION_TOKENS = 2048
# Far more than any such question has: looked at before the tokenizer spends time on it.
MAX_QUESTION_CHARACTERS = 32768
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Frame:
    """One camera frame: RGB uint8 [height, width, 3] of any size; `stamp` in nanoseconds."""

    memory: VisualMemory
    pixels: np.ndarray
    stamp: int


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
        options: Options | None = None,
        fp8: bool = False,
    ):
        """`frame_size` is (height, width) in pixels; `fp8` rounds projections to 8 bits."""
        options = options or Options()
        geometry = Geometry.of(weights, frame_size)
        weights = kernels.fastest(weights, fp8)
        self.weights, self.prompt, self.options, self.name = weights, prompt, options, name
        self.frame_size, self.tokens_per_frame = geometry.frame_size, geometry.tokens
        with torch.no_grad():
            self._runner = _runner(weights, geometry, options)
            self._primed = self._runner.prime(prompt.header(options.prompt_layout))
            self._free = [self.new_memory() for _ in range(options.branches)]

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str = 'cpu',
        dtype: torch.dtype | None = None,
        frame_size: tuple[int, int] | None = None,
        options: Options | None = None,
        fp8: bool = False,
        progress: Progress = quietly,
    ) -> StreamingEngine:
        """Load a checkpoint folder.

        `dtype` defaults to float32 on the CPU and bfloat16 elsewhere; `frame_size` (height, width)
        to the checkpoint's own, else 448 x 448; `fp8` rounds the weights and inputs of projections
        to 8 bits, on GPUs that multiply those. `progress` gets lines about what has been loaded.
        Raises CheckpointError, or ValueError for a device or frame size that cannot be used.
        """
        folder = Path(path).expanduser()
        try:
            torch.ones(1, device=device).item()
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f'device "{device}" cannot be used: {error}') from None
        if dtype is None:
            dtype = torch.float32 if torch.device(device).type == 'cpu' else torch.bfloat16
        with torch.no_grad():
            weights = load_checkpoint(folder, device, dtype, progress)
        prompt = Prompt(folder, weights.config)
        size = frame_size or cls.frame_size_of(folder)
        return cls(weights, prompt, size, folder.resolve().name, options, fp8)

    @staticmethod
    def frame_size_of(folder: Path) -> tuple[int, int]:
        """Height and width that a checkpoint wants its frames in."""
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

    @property
    def lookahead(self) -> int:
        """Tokens of an answer that are under way before the one before them is known."""
        return self._runner.lookahead

    @property
    def frames_at_once(self) -> int:
        """How many frames of different memories are best taken together."""
        return self._runner.pictures_at_once

    @property
    def weight_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.weights.tensors())

    @property
    def gpu_memory(self) -> int | None:
        """Bytes that this process holds on the GPU; None on a CPU."""
        device = self.weights.device
        return torch.cuda.memory_allocated(device) if device.type == 'cuda' else None

    @torch.no_grad()
    def new_memory(self) -> VisualMemory:
        """An empty memory for one camera; RuntimeError when the GPU has room for no more."""
        return VisualMemory(
            self._runner.new_state(),
            self._primed,
            self.name,
            self.weights.fingerprint,
            self.frame_size,
            self.options.stream,
        )

    def ingest(self, memory: VisualMemory, frame: np.ndarray, stamp: int) -> None:
        """Take a frame, RGB uint8 [height, width, 3] of any size, into `memory`.

        `stamp` is its time in nanoseconds. Time in the memory goes on by the difference to the
        frame before; a jump back, or of more than an hour, counts as none. With two frames a grid,
        every first one waits in `memory` for the second. Raises ValueError for anything that is
        not such a frame; the memory is then as it was. Should the device fail in the middle of a
        frame, the memory is reset before the error is raised.
        """
        self.ingest_together([Frame(memory, np.asarray(frame), operator.index(stamp))])

    def room_for_frame(
        self, memory: VisualMemory, shape: tuple[int, int, int], place: int = 0, of: int = 1
    ) -> np.ndarray:
        """Room for a frame [height, width, 3] that `ingest` takes next, uint8.

        On a GPU this is where it is copied from: a frame that is made there is not copied on the
        host. `place` is its number among the `of` frames that are ingested together.
        """
        return self._runner.room(place, of, len(memory.waiting), shape)

    def check_frame(self, memory: VisualMemory, frame: np.ndarray) -> None:
        """Raise the ValueError that `ingest` would, if the frame cannot be taken."""
        self._check_own(memory)
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise ValueError(
                f'a frame must be RGB uint8 [height, width, 3], found {frame.dtype} '
                f'{list(frame.shape)}'
            )

    @torch.no_grad()
    def ingest_together(self, frames: Sequence[Frame]) -> None:
        """Take frames of different memories at once, see `ingest`; at most `frames_at_once`.

        An error leaves none of them taken.
        """
        if len(frames) > self.frames_at_once or len({f.memory for f in frames}) < len(frames):
            raise ValueError(f'expected at most {self.frames_at_once} frames, each of a memory')
        for frame in frames:
            self.check_frame(frame.memory, frame.pixels)
        pictures = []
        for frame in frames:
            parts = [*frame.memory.waiting, frame.pixels]
            if len(parts) == self.options.frames_per_grid:
                seconds = frame.memory.elapsed_at(frame.stamp) // NANOSECONDS
                # Whole seconds, as the published demo steps it.
                position = seconds * self.weights.config.vision.tokens_per_second
                pictures.append(Picture(frame.memory.state, parts, position))
                parts = []
            else:
                parts[-1] = parts[-1].copy()  # whoever made it may use its buffer again
            frame.memory.waiting = parts
        try:
            if pictures:
                self._runner.ingest(pictures)
        except BaseException:
            for frame in frames:
                frame.memory.reset()  # some layers have the frame and some do not
            raise
        for frame in frames:
            frame.memory.count(frame.stamp)

    def ask(self, memory: VisualMemory, question: str, sampling: Sampling | None = None) -> Answer:
        """Ask about all that `memory` has seen up to now; iterate over the answer to get its text.

        The answer works on a branch: `memory` may take more frames meanwhile, and never learns of
        the question. With `sampling.json_schema` its text is JSON that fits the schema, if it is
        not cut short (Answer.finish is then 'length' or 'closed'), and the model is told so.

        Raises ValueError for an empty or overlong question, an empty memory, or a schema that
        cannot be kept to; RuntimeError when as many answers are open as the engine has branches.
        """
        self._check_own(memory)
        if not question.strip():
            raise ValueError('the question is empty')
        if memory.frames == len(memory.waiting):
            raise ValueError('no frame seen yet')
        sampling = sampling or Sampling()
        asked, schema = 'the question', ''
        if sampling.json_schema:
            schema = read_schema(sampling.json_schema)
            asked, question = 'the question with its schema', json_question(question, schema)
        if len(question) > MAX_QUESTION_CHARACTERS:
            raise ValueError(
                f'{asked} is {len(question)} characters long, at most '
                f'{MAX_QUESTION_CHARACTERS} fit'
            )
        tokens = self.prompt.question(question, self.options.prompt_layout)
        if len(tokens) > MAX_QUESTION_TOKENS:
            raise ValueError(
                f'{asked} is {len(tokens)} tokens long, at most {MAX_QUESTION_TOKENS} fit'
            )
        matcher = self._grammar.begin(schema) if schema else None
        if not self._free:
            raise RuntimeError('too many open answers: finish or close one first')
        branch = self._free.pop()
        with torch.no_grad():
            branch.copy_(memory)
            decoding = self._runner.begin(branch.state, sampling)
        return Answer(self, branch, tokens, sampling, decoding, matcher)

    def caption(
        self, memory: VisualMemory, prompt: str = CAPTION_PROMPT, sampling: Sampling | None = None
    ) -> Answer:
        """Say what the stream shows: a question that nobody has to ask."""
        return self.ask(memory, prompt, sampling)

    def release(self, branch: VisualMemory) -> None:
        """Take back the branch of a finished answer."""
        self._free.append(branch)

    @functools.cached_property
    def _grammar(self) -> JsonGrammar:
        """Made when first needed: with a large vocabulary that takes a second."""
        config = self.weights.config
        return JsonGrammar(self.prompt.tokenizer_json(), config.vocab_size, config.eos_token_ids)

    def _check_own(self, memory: VisualMemory) -> None:
        if not memory.is_of(self._primed):
            raise ValueError('this memory was made by another engine')


class Answer:
    """An answer in the making. Iterating yields pieces of text; `close` ends it early.

    `text` is what has been said; `tokens` how many tokens that took; `finish` is '' while it goes
    on, then 'end', 'length' or 'closed'. `frames`, `first_stamp` and `newest_stamp` tell what it
    has seen.
    """

    def __init__(
        self,
        engine: StreamingEngine,
        branch: VisualMemory,
        prompt: list[int],
        sampling: Sampling,
        decoding: Decoding,
        matcher: JsonMatcher | None,
    ):
        self._engine, self._branch = engine, branch
        self._decoding, self._matcher = decoding, matcher
        # What may come next in JSON depends on the token before.
        self._ahead = 0 if matcher else engine.lookahead
        self._unread = prompt
        self._drawn = 0
        self._most = sampling.max_tokens
        self._stream = TextStream(engine.prompt)
        self._began = time.monotonic()
        self.token_ids: list[int] = []
        self.seconds = 0.0
        self.finish = ''
        self.frames = branch.frames
        self.first_stamp, self.newest_stamp = branch.first_stamp, branch.newest_stamp

    @property
    def tokens(self) -> int:
        return len(self.token_ids)

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
        try:
            token = self._next_token()
        except BaseException:
            self.close()
            raise
        if token is None:
            return ''
        if token in self._engine.weights.config.eos_token_ids:
            return self._end('end')
        self.token_ids.append(token)
        piece = self._stream.push(token)
        if self._matcher and self._matcher.complete:
            return piece + self._end('end')
        if self.tokens >= self._most:
            return piece + self._end('length')
        return piece

    @torch.no_grad()
    def _next_token(self) -> int | None:
        """A token, or None while the question is being taken in."""
        if self._unread:
            size = self._engine.tokens_per_frame
            part, self._unread = self._unread[:size], self._unread[size:]
            last = not self._unread
            self._decoding.read(part, last, self._forbidden() if last else None)
            if not last:
                return None
            self._drawn = 1
        # A GPU goes on while the host looks at the token before.
        while self._drawn <= self.tokens + self._ahead and self._drawn < self._most:
            self._decoding.go_on(self._forbidden())
            self._drawn += 1
        token = self._decoding.token()
        if self._matcher:
            self._matcher.accept(token)
        return token

    def _forbidden(self) -> Tensor | None:
        return self._matcher.mask() if self._matcher else None

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


def _runner(weights: Weights, geometry: Geometry, options: Options) -> Runner:
    if weights.kernels is plain:
        return PlainRunner(weights, geometry, options)
    from .graphs import GraphRunner  # it loads the GPU's tool chain

    return GraphRunner(weights, geometry, options)
