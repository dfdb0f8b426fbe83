# SPDX-License-Identifier: GPL-2.0-only
"""A connection of Ansible to a machine of the bench, which has no network: the test
that runs ansible-playbook serves it on a Unix socket. One request and one answer a
connection, each a JSON object."""

import base64
import json
import socket

from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.common.text.converters import to_bytes
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: bench
short_description: run tasks in a machine of the tests
description: By the control channel of the machine.
options:
  socket:
    description: Where the test listens.
    vars:
      - name: ansible_host
"""


class Connection(ConnectionBase):
    transport = "bench"
    has_pipelining = True

    def _connect(self):
        self._connected = True
        return self

    def close(self):
        self._connected = False

    def _ask(self, **request):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.get_option("socket"))
            s.sendall(json.dumps(request).encode())
            s.shutdown(socket.SHUT_WR)
            with s.makefile() as f:
                answer = json.load(f)
        if answer.get("error"):
            raise AnsibleConnectionFailure(answer["error"])
        return answer

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        a = self._ask(command=cmd, data=base64.b64encode(to_bytes(in_data or b"")).decode())
        return a["code"], base64.b64decode(a["out"] or ""), base64.b64decode(a["err"] or "")

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        with open(in_path, "rb") as f:
            self._ask(path=out_path, data=base64.b64encode(f.read()).decode())

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        raise AnsibleConnectionFailure("the bench fetches no files")
