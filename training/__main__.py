"""python3 -m training STAGE: trains models/tiny, or one stage of it.

Each stage starts from what the one before it left in the run's folder, and goes on where it was
when it was stopped. `all` runs them one after another.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import yaml
from safetensors.torch import load_file

from infinitevl_ros.cli.random_checkpoint import write_checkpoint, write_prompt
from infinitevl_ros.engine.prompt import Prompt
from infinitevl_ros.model.config import DELTA, ModelConfig

from . import asking
from .asking import Asking
from .checkpoint import config_values, initial_tensors, make_tokenizer
from .curve import draw_curve
from .data import Phase, Pool, Words, WorldSettings
from .group import ALONE, Group
from .seeing import Seeing
from .trainer import Stage, Student, Task, Trainer

CONFIGS = Path(__file__).parent / 'configs'


@dataclass(frozen=True)
class Recipe:
    """A configuration file, read."""

    seed: int
    sizes: dict
    teacher_window: int
    worlds: WorldSettings
    stages: tuple[Stage, ...]

    @property
    def teacher(self) -> int:
        """The number of the last stage in which every layer attends."""
        return max(i for i, stage in enumerate(self.stages) if stage.full_attention)

    @classmethod
    def read(cls, file: Path) -> Recipe:
        values = yaml.safe_load(file.read_text())
        stages, clock = [], 0
        for name, stage in values['stages'].items():
            phases = tuple(Phase(**phase) for phase in stage.pop('phases'))
            stages.append(Stage(name, phases=phases, clock=clock, **stage))
            clock += stages[-1].steps
        return cls(
            values['seed'],
            values['model'],
            values['teacher_window'],
            WorldSettings(**values.get('worlds', {})),
            tuple(stages),
        )


class Run:
    """A folder with all that a recipe has led to so far: a checkpoint for each finished stage."""

    def __init__(self, recipe: Recipe, folder: Path, device: torch.device, group: Group = ALONE):
        self.recipe, self.folder, self.device, self._group = recipe, folder, device, group
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = make_tokenizer()
        self._seed = recipe.seed + group.rank  # of worlds and questions: each its own
        self._worlds = recipe.worlds.share(group.size)
        self._pool = Pool(self._worlds, self._seed, device)

    def train(self, number: int, until: float) -> bool:
        """Run a stage, or what is left of it; false when the time ran out first."""
        stage = self.recipe.stages[number]
        student = self._student(number)
        task = self._task(stage, student)
        work = Trainer(stage, student, task, self.folder, self._group)
        done = work.run(self._pool, until)
        if done and self._group.leads:
            self._write(self.folder / stage.name, number, student)
            draw_curve(self.folder / 'log.jsonl', self.folder / 'curve.png')
            (self.folder / stage.name / 'done').touch()
        return self._group.agree(done)

    def _task(self, stage: Stage, student: Student) -> Task:
        settings = self._worlds
        if stage.loss == 'sights':
            return Seeing(student, settings, self._seed, self.recipe.seed)
        loss = asking.answers
        if stage.loss != 'answers':
            teacher = self._load(self.recipe.teacher)
            loss = {'layers': asking.layers_of, 'scores': asking.scores_of}[stage.loss](teacher)
        with TemporaryDirectory() as folder:
            write_prompt(Path(folder), self.tokenizer)
            prompt = Prompt(Path(folder), student.config)
        words = Words(prompt, student.config.eos_token_ids[0])
        return Asking(student, loss, settings, self._seed, words)

    def _config(self, number: int) -> dict:
        full = self.recipe.stages[number].full_attention
        window = self.recipe.teacher_window if full else None
        return config_values(self.recipe.sizes, self.tokenizer, window)

    def _student(self, number: int) -> Student:
        """What a stage starts from."""
        config = ModelConfig.from_dict(self._config(number), 'the recipe')
        tensors = initial_tensors(config, self.recipe.seed)
        if number:
            before = self._load(number - 1)
            for name, tensor in before.parameters.items():
                if name in tensors and not _is_new(name, before.config, config):
                    tensors[name] = tensor
        return Student(config, tensors, self.device)

    def _load(self, number: int) -> Student:
        folder = self.folder / self.recipe.stages[number].name
        file = folder / 'model.safetensors'
        if not file.exists():
            raise SystemExit(f'{file} is missing: run stage {folder.name} first')
        config = ModelConfig.from_dict(self._config(number), str(folder))
        return Student(config, load_file(file), self.device)

    def _write(self, folder: Path, number: int, student: Student) -> None:
        folder.mkdir(exist_ok=True)
        tensors = {
            name: tensor.detach().to('cpu', torch.bfloat16)
            for name, tensor in student.parameters.items()
        }
        write_checkpoint(folder, self._config(number), self.tokenizer, tensors)


def _is_new(name: str, before: ModelConfig, after: ModelConfig) -> bool:
    """Whether a tensor belongs to a mixer that is of another kind in the network before."""
    if '.self_attn.' not in name:
        return False
    layer = int(name.split('.')[2])
    return (before.layer_types[layer] == DELTA) != (after.layer_types[layer] == DELTA)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python3 -m training', description=__doc__)
    parser.add_argument('stage', help='a stage of the configuration, or all')
    parser.add_argument('--config', type=Path, default=CONFIGS / 'tiny.yaml')
    parser.add_argument(
        '--folder', type=Path, default=Path('runs/tiny'), help='of the run; default: %(default)s'
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--minutes', type=float, default=float('inf'), help='stop after these')
    arguments = parser.parse_args(argv)
    until = time.monotonic() + 60 * arguments.minutes
    recipe = Recipe.read(arguments.config)
    names = [stage.name for stage in recipe.stages]
    if arguments.stage not in (*names, 'all'):
        parser.error(f'unknown stage {arguments.stage}: expected all, {", ".join(names)}')
    torch.backends.cuda.matmul.allow_tf32 = True
    group = Group.join()
    say = print if group.leads else lambda text: None
    run = Run(recipe, arguments.folder, torch.device(arguments.device), group)
    for number, name in enumerate(names):
        finished = group.agree((arguments.folder / name / 'done').exists())
        if arguments.stage == name or (arguments.stage == 'all' and not finished):
            if not run.train(number, until):
                say(f'Stopped in {name}; the same command goes on.')
                break
            say(f'Finished {name}: {arguments.folder / name}')
    group.leave()
    return 0


if __name__ == '__main__':
    sys.exit(main())
