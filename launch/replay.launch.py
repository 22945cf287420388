"""Play a bag with its clock into infinitevl_node, which stays for questions when the bag ends.

The bag begins when the node is active: no frame is lost to the loading of the model.
"""

import asyncio
import re
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import Event, LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueCoroutine,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handler import EventHandler
from launch_ros.actions import LifecycleNode
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState

from infinitevl_ros.ros import launching

# Within this time [s] subscribers find the player, whose messages before are lost to them: Fast
# DDS tells of a new process at once, and again after 3 s to those who did not hear.
DISCOVERY = '4'
POLL = 0.5  # s
POSITIVE = re.compile(r'\d+\.?\d*|\.\d+')


class NodeIsActive(Event):
    """The node takes frames."""

    name = 'infinitevl_ros.NodeIsActive'


async def wait_until_active(context: LaunchContext, node: LifecycleNode) -> None:
    """Emit NodeIsActive when it is.

    Asks again and again: what is said once, an event of a transition or a request, is now and
    then lost while two processes are finding one another.
    """
    client = get_ros_node(context).create_client(GetState, f'{node.node_name}/get_state')
    while True:
        answer = client.call_async(GetState.Request()) if client.service_is_ready() else None
        await asyncio.sleep(POLL)
        if answer and answer.done():
            if answer.result().current_state.id == State.PRIMARY_STATE_ACTIVE:
                await context.emit_event(NodeIsActive())
                return
        elif answer:
            client.remove_pending_request(answer)


def player(context: LaunchContext) -> ExecuteProcess:
    """`ros2 bag play`; RuntimeError when the bag or rosbag2 is missing, or for a wrong rate.

    It would complain itself, but only once the model is loaded.
    """
    bag = Path(launching.value(context, 'bag')).expanduser()
    if not bag.exists():
        raise RuntimeError(f'bag is "{bag}", expected a bag: there is nothing')
    rate = launching.value(context, 'rate')
    if not POSITIVE.fullmatch(rate) or not float(rate):
        raise RuntimeError(f'rate is "{rate}", expected a number above 0')
    try:
        get_package_prefix('ros2bag')
    except PackageNotFoundError:
        raise RuntimeError(
            '"ros2 bag" is not there: install rosbag2 (apt install ros-$ROS_DISTRO-rosbag2)'
        ) from None
    command = ['ros2', 'bag', 'play', str(bag), '--clock', '--delay', DISCOVERY]
    command += ['--rate', rate]
    if launching.value(context, 'loop') == 'true':
        command.append('--loop')
    # It has no terminal to read keys from.
    command.append('--disable-keyboard-controls')
    return ExecuteProcess(cmd=command, name='player', output='screen')


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    bag = player(context)
    parameters = {'use_sim_time': True, 'autostart': True}
    parameters |= launching.given(context, 'image', 'model', 'device', 'transport')
    node = launching.infinitevl_node(context, parameters, on_exit=launching.end_all)
    return [
        RegisterEventHandler(
            EventHandler(matcher=lambda event: isinstance(event, NodeIsActive), entities=[bag])
        ),
        node,
        OpaqueCoroutine(coroutine=wait_until_active, args=[node]),
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument('bag', description='the bag: a folder or a file'),
            DeclareLaunchArgument('rate', default_value='1.0', description='speed of the replay'),
            DeclareLaunchArgument(
                'loop',
                default_value='false',
                description='whether the bag begins again at its end',
                choices=['true', 'false'],
            ),
            *launching.arguments(
                'image', 'model', 'device', 'transport', 'params_file', 'namespace', 'log_level'
            ),
            OpaqueFunction(function=start),
        ]
    )
