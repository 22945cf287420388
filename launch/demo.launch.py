"""A rendered patrol as the camera, and infinitevl_node on it: the whole thing without a robot.

Without arguments the node takes the small model of the package, which knows this rendered world,
and says every five seconds what it sees.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import ExecuteProcess, OpaqueFunction
from launch_ros.actions import LifecycleNode

from infinitevl_ros.ros import launching


def start(context: LaunchContext) -> list[LifecycleNode]:
    parameters = {'topic': '/image'} | launching.given(context, 'model', 'device')
    return [launching.infinitevl_node(context, parameters, on_exit=launching.end_all)]


def generate_launch_description() -> LaunchDescription:
    camera = ExecuteProcess(
        # As the node's own script: the interpreter of the environment that is active.
        cmd=['python3', '-m', 'infinitevl_ros.cli.camera'],
        # Started in the source folder, it must find the installed package all the same.
        additional_env={'PYTHONSAFEPATH': '1'},
        name='camera',
        output='screen',
        on_exit=launching.end_all,
    )
    return LaunchDescription(
        [
            *launching.arguments('model', 'device', 'params_file', 'namespace', 'log_level'),
            camera,
            OpaqueFunction(function=start),
        ]
    )
