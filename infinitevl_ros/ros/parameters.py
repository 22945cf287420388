"""The node's parameters in one table: declared, checked, documented and shipped from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
from ..engine.options import POSITIONS, PROMPT_LAYOUTS


@dataclass(frozen=True)
class Parameter:
    """One parameter. `limits`: least and greatest value; `choices`: all that a text may be."""

    name: str
    default: Any
    description: str
    read_only: bool = False
    limits: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()

    @property
    def descriptor(self) -> ParameterDescriptor:
        descriptor = ParameterDescriptor(
            description=self.description,
            read_only=self.read_only,
            additional_constraints=f'one of {", ".join(self.choices)}' if self.choices else '',
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
        choices=('auto', 'float32', 'bfloat16', 'fp8'),
    ),
    Parameter(
        'frame_size',
        0,
        'Side [pixels] of the square that frames are resized to, a multiple of 28; '
        "0 takes the checkpoint's own.",
        True,
        limits=(0, 1792),
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
        'transport',
        'raw',
        'raw subscribes to image, compressed to image/compressed (JPEG or PNG).',
        True,
        choices=('raw', 'compressed'),
    ),
    Parameter(
        'image_reliability',
        'auto',
        'QoS reliability of the image subscription; auto takes what the camera offers.',
        True,
        choices=('auto', 'reliable', 'best_effort'),
    ),
    Parameter(
        'max_questions',
        8,
        'Questions that may wait; one more is turned away at once.',
        True,
        limits=(1, 1000),
    ),
    Parameter(
        'caption_period',
        5.0,
        'Stream time [s] between captions, by the stamps of the images; 0 turns them off.',
        limits=(0.0, 86400.0),
    ),
    Parameter('caption_prompt', CAPTION_PROMPT, 'What the model is asked for a caption.'),
    Parameter('max_tokens', 64, 'Longest answer or caption [tokens].', limits=(1, 4096)),
    Parameter(
        'query_timeout',
        30.0,
        'Longest wait [s] for an answer; what has been said by then is returned.',
        limits=(0.1, 3600.0),
    ),
)


def declare(node: Node) -> None:
    """Declare the whole table; later changes that break a rule are refused with the reason."""
    for parameter in PARAMETERS:
        node.declare_parameter(parameter.name, parameter.default, parameter.descriptor)
        reason = _fault(parameter, node.get_parameter(parameter.name).value)
        if reason:
            raise ValueError(reason)
    node.add_on_set_parameters_callback(_check)


def reader(node: Node) -> Callable[[str], Any]:
    """A function from a parameter's name to its present value."""
    return lambda name: node.get_parameter(name).value


def _check(changes: list[RosParameter]) -> SetParametersResult:
    table = {parameter.name: parameter for parameter in PARAMETERS}
    for change in changes:
        reason = _fault(table[change.name], change.value) if change.name in table else ''
        if reason:
            return SetParametersResult(successful=False, reason=reason)
    return SetParametersResult(successful=True)


def _fault(parameter: Parameter, value: Any) -> str:
    """What is wrong with a value beyond its type and range, which rclpy checks; '' if nothing."""
    if parameter.choices and value not in parameter.choices:
        return f'{parameter.name} is "{value}", expected one of {", ".join(parameter.choices)}'
    if parameter.name == 'caption_prompt' and not value.strip():
        return 'caption_prompt is empty; caption_period 0 turns captions off'
    if parameter.name == 'frame_size' and value % 28:
        return f'frame_size is {value}, expected a multiple of 28'
    return ''
