"""The node's parameters in one table: declared, checked, documented and shipped from it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from ..engine.engine import CAPTION_PROMPT
from ..engine.loading import DTYPES
from ..engine.options import POSITIONS, PROMPT_LAYOUTS

SMALLEST = 0.001  # of what is above 0: a period of less would round to none
OR_OFF = f'at least {SMALLEST} if not 0'
CAMERA_NAME = re.compile('[A-Za-z][A-Za-z0-9_]*')
# As `ros2 param describe` calls them.
TYPES = {str: 'string', bool: 'boolean', int: 'integer', float: 'double', list: 'string array'}


@dataclass(frozen=True)
class Parameter:
    """One parameter. `limits`: least and greatest value; `choices`: all that a text may be.

    `rule`: in words, what `_fault` holds a value to besides. `per_camera`: cameras with names have
    one each, `NAME.parameter`, whose default is this one.
    """

    name: str
    default: Any
    description: str
    read_only: bool = False
    limits: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    rule: str = ''
    per_camera: bool = False

    @property
    def constraint(self) -> str:
        return f'one of {", ".join(self.choices)}' if self.choices else self.rule

    @property
    def descriptor(self) -> ParameterDescriptor:
        descriptor = ParameterDescriptor(
            description=self.description,
            read_only=self.read_only,
            additional_constraints=self.constraint,
        )
        if self.limits and isinstance(self.default, float):
            low, high = self.limits
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        elif self.limits:
            low, high = self.limits
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        return descriptor


PARAMETERS = (
    Parameter(
        'model',
        '',
        'Checkpoint folder; empty: the small model of the package, for its rendered world.',
        True,
    ),
    Parameter(
        'device',
        'auto',
        'Where the network runs: cpu, cuda, cuda:1, ...; auto takes a GPU when there is one.',
        True,
    ),
    Parameter(
        'dtype',
        'auto',
        'Precision of weights and windows; auto is float32 on a CPU and bfloat16 on a GPU. '
        'fp8 is bfloat16 with weights in 8 bits, on GPUs from Ada and Hopper on.',
        True,
        choices=DTYPES,
    ),
    Parameter(
        'frame_size',
        0,
        "Side [pixels] of the square that frames are resized to; 0 takes the checkpoint's own.",
        True,
        limits=(0, 1792),
        rule='a multiple of 28',
    ),
    Parameter(
        'frames_per_grid',
        1,
        '2 puts two camera frames into one picture of the network: half the work, and every '
        'second frame waits for the next.',
        True,
        limits=(1, 2),
    ),
    Parameter(
        'positions',
        'published',
        'Where a question stands: behind all of the stream (published), or as if the newest frame '
        'were the first (rebased), which keeps distances small in long streams.',
        True,
        choices=POSITIONS,
    ),
    Parameter(
        'prompt_layout',
        'header_first',
        "Whether the chat template's header opens the stream (header_first) or follows it, as in "
        'the published demo (published).',
        True,
        choices=PROMPT_LAYOUTS,
    ),
    Parameter(
        'autostart',
        True,
        'Configure and activate at the start, and again after a failure of the engine; false '
        'leaves that to a lifecycle manager.',
        True,
    ),
    Parameter(
        'cameras',
        [''],
        'Names of the cameras, each with a memory of its own; one camera needs no name.',
        True,
        rule='letters, digits and _, none twice',
    ),
    Parameter(
        'topic',
        'image',
        'Topic of the images; that of a camera with a name is NAME/image unless set.',
        True,
        per_camera=True,
    ),
    Parameter(
        'transport',
        'raw',
        'raw subscribes to the topic itself, compressed to what is below it in /compressed (JPEG '
        'or PNG).',
        True,
        choices=('raw', 'compressed'),
        per_camera=True,
    ),
    Parameter(
        'image_reliability',
        'auto',
        'QoS reliability of the image subscription; auto takes what the camera offers.',
        True,
        choices=('auto', 'reliable', 'best_effort'),
        per_camera=True,
    ),
    Parameter(
        'rate_limit',
        0.0,
        'Most frames a second [Hz] that are taken, by their stamps; 0 takes every one.',
        limits=(0.0, 1000.0),
        rule=OR_OFF,
        per_camera=True,
    ),
    Parameter(
        'time_jump',
        'continue',
        'When stamps jump back by more than a second, as when a bag begins again: go on with the '
        'memory as if no time had passed (continue), or forget everything (reset).',
        choices=('continue', 'reset'),
    ),
    Parameter(
        'max_questions',
        8,
        'Questions that may wait; one more is turned away at once.',
        True,
        limits=(1, 1000),
    ),
    Parameter(
        'max_watches',
        8,
        'Standing questions at a time; one more is turned away at once.',
        True,
        limits=(1, 1000),
    ),
    Parameter(
        'memory_dir',
        '',
        'Folder that memories are saved in; empty: infinitevl in $ROS_HOME, else in ~/.ros.',
        True,
    ),
    Parameter(
        'restore',
        False,
        'Go on, when activated for the first time, from the autosave of this node and model.',
        True,
    ),
    Parameter(
        'autosave_period',
        0.0,
        'Time [s] between savings of all memories as autosave, and once more when the node is '
        'deactivated or ends; 0: never.',
        limits=(0.0, 86400.0),
        rule=OR_OFF,
    ),
    Parameter(
        'caption_period',
        5.0,
        'Stream time [s] between captions, by the stamps of the images; 0 turns them off.',
        limits=(0.0, 86400.0),
        rule=OR_OFF,
    ),
    Parameter(
        'caption_prompt',
        CAPTION_PROMPT,
        'What the model is asked for a caption.',
        rule='not empty',
    ),
    Parameter(
        'caption_changes_only',
        False,
        'Publish a caption only if its text is not that of the one before.',
    ),
    Parameter('max_tokens', 64, 'Longest answer or caption [tokens].', limits=(1, 4096)),
    Parameter(
        'query_timeout',
        30.0,
        'Longest wait [s] for an answer; what has been said by then is returned.',
        limits=(0.1, 3600.0),
    ),
)


class Values:
    """The present values, to be read from any thread: `values('max_tokens')`."""

    def __init__(self, node: Node):
        """Declare the whole table on `node`; later changes that break a rule are refused.

        Raises ValueError with the reason for a value from outside that breaks one, and rclpy's
        exceptions for a wrong type.
        """
        self._node = node
        self._table: dict[str, Parameter] = {}
        self._values: dict[str, Any] = {}
        for parameter in PARAMETERS:
            self._declare(parameter)
        if reason := _camera_fault(self('cameras')):
            raise ValueError(reason)
        for camera in filter(None, self('cameras')):
            for parameter in PARAMETERS:
                if parameter.per_camera:
                    topic = parameter.name == 'topic'
                    default = f'{camera}/image' if topic else self(parameter.name)
                    name = f'{camera}.{parameter.name}'
                    self._declare(replace(parameter, name=name, default=default))
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._apply)

    def __call__(self, name: str, camera: str = '') -> Any:
        return self._values[f'{camera}.{name}' if camera else name]

    def _declare(self, parameter: Parameter) -> None:
        value = self._node.declare_parameter(
            parameter.name, parameter.default, parameter.descriptor
        ).value
        if reason := _fault(parameter, value):
            raise ValueError(reason)
        self._table[parameter.name], self._values[parameter.name] = parameter, value

    def _check(self, changes: list[RosParameter]) -> SetParametersResult:
        for change in changes:
            parameter = self._table.get(change.name)
            if parameter and (reason := _fault(parameter, change.value)):
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _apply(self, changes: Iterable[RosParameter]) -> None:
        for change in changes:
            if change.name in self._table:
                self._values[change.name] = change.value


def table() -> str:
    """The table of parameters in README.md."""
    rows = ['| parameter | type and range | default | |', '| --- | --- | --- | --- |']
    for parameter in PARAMETERS:
        default = parameter.default
        if isinstance(default, bool):
            default = str(default).lower()
        elif not default or isinstance(default, list):
            default = repr(default)
        limits = '{:g} to {:g}'.format(*parameter.limits) if parameter.limits else ''
        kind = TYPES[type(parameter.default)], limits, parameter.constraint
        cells = (
            f'`{parameter.name}`' + ('' if parameter.read_only else ' *'),
            ', '.join(filter(None, kind)),
            f'`{default}`',
            parameter.description,
        )
        rows.append(f'| {" | ".join(cells)} |')
    return '\n'.join(rows)


def _fault(parameter: Parameter, value: Any) -> str:
    """What is wrong with a value beyond its type and range, which rclpy checks; '' if nothing."""
    if parameter.choices and value not in parameter.choices:
        return f'{parameter.name} is "{value}", expected one of {", ".join(parameter.choices)}'
    if parameter.name == 'caption_prompt' and not value.strip():
        return 'caption_prompt is empty; caption_period 0 turns captions off'
    if isinstance(value, float) and 0 < value < SMALLEST:
        return f'{parameter.name} is {value}, expected at least {SMALLEST}, or 0 where that is off'
    if parameter.name == 'frame_size' and value % 28:
        return f'frame_size is {value}, expected a multiple of 28'
    return ''


def _camera_fault(cameras: list[str]) -> str:
    """What is wrong with the list of cameras; '' if nothing."""
    taken = {parameter.name for parameter in PARAMETERS}
    if cameras == ['']:
        return ''
    if not cameras or len(set(cameras)) < len(cameras):
        return f'cameras is {list(cameras)}, expected at least one name, and none twice'
    for name in cameras:
        if not CAMERA_NAME.fullmatch(name) or name in taken:
            return (
                f'cameras has "{name}", expected names of letters, digits and _ that begin with '
                'a letter and are no parameter; one camera alone may have the empty name'
            )
    return ''


if __name__ == '__main__':
    print(table())
