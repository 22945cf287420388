#!/usr/bin/env bash
# Source ROS 2, the workspace and the environment that torch is in; then become the command.
set -e
# shellcheck source=/dev/null
. "/opt/ros/$ROS_DISTRO/setup.bash"
# shellcheck source=/dev/null
. /ws/install/local_setup.bash
# shellcheck source=/dev/null
. /opt/venv/bin/activate
exec "$@"
