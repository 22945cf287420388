"""Start infinitevl_node on a camera topic; `--show-args` lists the arguments."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

# Without these, glibc maps and unmaps every large image anew: thousands of page faults a frame.
MALLOC = {'MALLOC_MMAP_THRESHOLD_': '33554432', 'MALLOC_TRIM_THRESHOLD_': '268435456'}


def start_node(context):
    """The node; arguments left empty leave what the parameter file says."""
    params_file = LaunchConfiguration('params_file').perform(context)
    if not Path(params_file).is_file():
        raise RuntimeError(f'params_file {params_file}: no such file')
    overrides = {
        name: value
        for name in ('model', 'device', 'transport')
        if (value := LaunchConfiguration(name).perform(context))
    }
    node = Node(
        package='infinitevl_ros',
        executable='infinitevl_node',
        namespace=LaunchConfiguration('namespace'),
        parameters=[params_file, overrides],
        remappings=[('image', LaunchConfiguration('image'))],
        arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level')],
        additional_env=MALLOC,
        output='screen',
    )
    return [node]


def generate_launch_description():
    config = PathJoinSubstitution(
        [FindPackageShare('infinitevl_ros'), 'config', 'infinitevl.yaml']
    )
    arguments = (
        ('image', 'image', 'image topic to subscribe to (of transport raw; see transport)'),
        ('model', '', 'checkpoint folder; empty: as in params_file'),
        ('device', '', 'cpu, cuda, ...; empty: as in params_file'),
        ('transport', '', 'raw or compressed; empty: as in params_file'),
        ('params_file', config, 'parameters of the node'),
        ('namespace', '', 'namespace of the node'),
        ('log_level', 'info', 'debug, info, warn, error or fatal'),
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, default, text in arguments
            ),
            OpaqueFunction(function=start_node),
        ]
    )
