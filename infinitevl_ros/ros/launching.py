"""What the launch files share: their arguments, and the node as these tell. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

# Without these, glibc maps and unmaps every large image anew: thousands of page faults a frame.
MALLOC = {'MALLOC_MMAP_THRESHOLD_': '33554432', 'MALLOC_TRIM_THRESHOLD_': '268435456'}

TRANSPORTS = ('raw', 'compressed')
DEFAULT_PARAMS = PathJoinSubstitution(
    [FindPackageShare('infinitevl_ros'), 'config', 'infinitevl.yaml']
)
# Name: default, description, and all that it may be where that is a short list.
ARGUMENTS = {
    'image': ('', 'camera topic; empty: as in params_file', None),
    'model': ('', 'checkpoint folder; empty: as in params_file', None),
    'device': ('', 'cpu, cuda, cuda:1, ...; empty: as in params_file', None),
    'transport': (
        '',
        'compressed subscribes to <topic>/compressed; empty: as in params_file',
        ('', *TRANSPORTS),
    ),
    'params_file': (DEFAULT_PARAMS, 'parameters of the node', None),
    'namespace': ('', 'namespace of the node', None),
    'autostart': (
        '',
        'whether the node configures and activates itself; empty: as in params_file',
        ('', 'true', 'false'),
    ),
    'log_level': (
        'info',
        'least severity that is logged',
        ('debug', 'info', 'warn', 'error', 'fatal'),
    ),
}


def arguments(*names: str) -> list[DeclareLaunchArgument]:
    """Declarations of these entries of ARGUMENTS."""
    declarations = []
    for name in names:
        default, description, choices = ARGUMENTS[name]
        declarations.append(
            DeclareLaunchArgument(
                name,
                default_value=default,
                description=description,
                choices=list(choices) if choices else None,
            )
        )
    return declarations


def value(context: LaunchContext, name: str) -> str:
    return context.launch_configurations[name]


def given(context: LaunchContext, *names: str) -> dict[str, Any]:
    """The node's parameters that these arguments set; the empty ones set none."""
    parameters = {name: value(context, name) for name in names if value(context, name)}
    if 'image' in parameters:
        parameters['topic'] = parameters.pop('image')
    if 'autostart' in parameters:
        parameters['autostart'] = parameters['autostart'] == 'true'
    return parameters


def infinitevl_node(
    context: LaunchContext, parameters: dict[str, Any], **options: Any
) -> LifecycleNode:
    """The node with these parameters before those of the argument params_file.

    Reads the arguments params_file, namespace and log_level too. Raises RuntimeError when
    params_file is no file: launch itself would only warn, and go on without it.
    """
    params_file = Path(value(context, 'params_file')).expanduser()
    if not params_file.is_file():
        raise RuntimeError(f'params_file is "{params_file}", expected a file: there is none')
    typed = {
        # Otherwise launch guesses types from texts: a camera named "on" would be a boolean.
        name: ParameterValue(setting, value_type=str) if isinstance(setting, str) else setting
        for name, setting in parameters.items()
    }
    return LifecycleNode(
        package='infinitevl_ros',
        executable='infinitevl_node',
        name='infinitevl_node',
        namespace=value(context, 'namespace'),
        parameters=[params_file, typed],
        ros_arguments=['--log-level', value(context, 'log_level')],
        additional_env=MALLOC,
        output='screen',
        **options,
    )


def end_all(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    """For `on_exit` of a process that the others are of no use without.

    Not while all are ending: a second shutdown is an error to launch_ros.
    """
    return None if context.is_shutdown else Shutdown(reason=f'{event.process_name} has ended')
