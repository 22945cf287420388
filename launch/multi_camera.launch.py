"""Start one infinitevl_node on several cameras, each with a memory of its own.

ros2 launch infinitevl_ros multi_camera.launch.py \
  cameras:=front:/front/image_raw,rear:/rear/image_raw:compressed
"""

from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import LifecycleNode

from infinitevl_ros.ros import launching

FORM = 'NAME:TOPIC[:raw|compressed], with a comma between cameras'


def camera_parameters(cameras: str) -> dict[str, Any]:
    """The node's parameters for a list of this form; it checks the names itself.

    Raises RuntimeError with the part that is wrong.
    """
    parameters: dict[str, Any] = {'cameras': []}
    for camera in cameras.split(','):
        name, *rest = camera.strip().split(':')
        if not name or not 1 <= len(rest) <= 2 or not rest[0]:
            raise RuntimeError(f'cameras has "{camera}", expected {FORM}')
        if len(rest) == 2 and rest[1] not in launching.TRANSPORTS:
            raise RuntimeError(
                f'cameras has "{camera}" with transport "{rest[1]}", expected one of '
                f'{", ".join(launching.TRANSPORTS)}'
            )
        parameters['cameras'].append(name)
        parameters |= zip((f'{name}.topic', f'{name}.transport'), rest, strict=False)
    return parameters


def start(context: LaunchContext) -> list[LifecycleNode]:
    parameters = camera_parameters(launching.value(context, 'cameras'))
    parameters |= launching.given(context, 'model', 'device', 'autostart')
    return [launching.infinitevl_node(context, parameters)]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument('cameras', description=f'the cameras: {FORM}'),
            *launching.arguments(
                'model', 'device', 'params_file', 'namespace', 'autostart', 'log_level'
            ),
            OpaqueFunction(function=start),
        ]
    )
