"""A managed node from the command line, killed, started again, and remembering all the same."""

import os
import signal
import subprocess

import pytest

pytest.importorskip('ros2launch', reason='launch is part of a ROS distribution, not of the wheels')

import yaml
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState

from infinitevl_ros.srv import LoadMemory, SaveMemory

FRAMES = 3
UNCONFIGURED = State.PRIMARY_STATE_UNCONFIGURED, 'unconfigured'
INACTIVE = State.PRIMARY_STATE_INACTIVE, 'inactive'
ACTIVE = State.PRIMARY_STATE_ACTIVE, 'active'


class Launched:
    """The node by `ros2 launch` with autostart off, in a group of processes of its own."""

    def __init__(self, robot, namespace, model, params_file):
        self.robot, self.name = robot, f'/{namespace}/infinitevl_node'
        command = ['ros2', 'launch', 'infinitevl_ros', 'infinitevl.launch.py', 'autostart:=false']
        command += [f'model:={model}', f'params_file:={params_file}', f'namespace:={namespace}']
        self._process = subprocess.Popen(
            [*command, 'image:=/image', 'device:=cpu'], start_new_session=True
        )

    def kill(self):
        """As a flat battery does."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def interrupt(self):
        os.killpg(self._process.pid, signal.SIGINT)
        return self._process.wait(30)

    @property
    def state(self):
        state = self.robot.call(GetState, f'{self.name}/get_state').current_state
        return state.id, state.label

    def change(self, transition, state):
        request = {'transition': Transition(id=transition)}
        self.robot.call(ChangeState, f'{self.name}/change_state', **request)
        assert self.state == state

    def refusal(self):
        response = self.robot.ask(self.name)
        assert not response.success
        return response.message


@pytest.fixture
def launch_node(robot, checkpoint, tmp_path):
    params_file = tmp_path / 'params.yaml'
    parameters = {'memory_dir': str(tmp_path / 'memories'), 'max_tokens': 8, 'caption_period': 0.0}
    params_file.write_text(yaml.safe_dump({'/**': {'ros__parameters': parameters}}))
    nodes = []

    def launch(namespace):
        nodes.append(Launched(robot, namespace, checkpoint, params_file))
        return nodes[-1]

    yield launch
    for node in nodes:
        node.kill()


def test_a_memory_outlives_its_node(robot, launch_node):
    node = launch_node('first')
    assert node.state == UNCONFIGURED
    assert 'unconfigured' in node.refusal()
    node.change(Transition.TRANSITION_CONFIGURE, INACTIVE)
    assert 'inactive' in node.refusal()
    node.change(Transition.TRANSITION_ACTIVATE, ACTIVE)
    answer = robot.first_answer(node.name, topic='/image')
    while answer.frames_seen < FRAMES:
        answer = robot.first_answer(node.name, topic='/image')
    node.change(Transition.TRANSITION_DEACTIVATE, INACTIVE)  # so that no frame comes after all
    saved = robot.call(SaveMemory, f'{node.name}/save_memory', name='walk')
    assert saved.success, saved.message
    node.change(Transition.TRANSITION_ACTIVATE, ACTIVE)
    answer = robot.ask(node.name)
    assert answer.success, answer.message
    node.kill()

    # Under another name: DDS takes a while to believe that the first one is gone.
    again = launch_node('second')
    again.change(Transition.TRANSITION_CONFIGURE, INACTIVE)
    again.change(Transition.TRANSITION_ACTIVATE, ACTIVE)
    assert 'no frame' in again.refusal()
    loaded = robot.call(LoadMemory, f'{again.name}/load_memory', name='walk')
    assert loaded.success, loaded.message
    remembered = robot.ask(again.name)
    assert remembered.success, remembered.message
    for field in ('answer', 'first_stamp', 'last_stamp', 'frames_seen', 'tokens'):
        assert getattr(remembered, field) == getattr(answer, field), field

    again.change(Transition.TRANSITION_DEACTIVATE, INACTIVE)
    again.change(Transition.TRANSITION_CLEANUP, UNCONFIGURED)
    assert again.interrupt() == 0
