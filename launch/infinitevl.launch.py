"""Start infinitevl_node on a camera topic; `--show-args` lists the arguments."""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch_ros.actions import LifecycleNode

from infinitevl_ros.ros import launching


def start(context: LaunchContext) -> list[LifecycleNode]:
    parameters = launching.given(context, 'image', 'model', 'device', 'transport', 'autostart')
    return [launching.infinitevl_node(context, parameters)]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [*launching.arguments(*launching.ARGUMENTS), OpaqueFunction(function=start)]
    )
