#!/usr/bin/env python3
"""A complete Laneway worker on one page, written from protocol/PROTOCOL.md.

    pip install pyzmq msgpack
    python3 worker.py [ENDPOINT] [KIND...]        default: tcp://127.0.0.1:7733 wordcount echo

It runs one task at a time. Start as many of these processes as tasks are to run at once. It may be killed at any moment:
its task goes to another worker within a second. SIGTERM lets the running task finish first; a second one does not.

For a broker on another machine, which takes peers with keys only, LANEWAY_KEY names our secret file and LANEWAY_BROKER_KEY
the broker's public file, both from `laneway keygen`.
"""

import json
import os
import secrets
import signal
import sys
import time
import tomllib

import msgpack
import zmq
from zmq.utils.monitor import recv_monitor_message

READY, BYE, TASKS, WAIT, ERR = 0x02, 0x05, 0x82, 0xC2, 0xFF
WAIT_MS = 10_000  # how long the broker may park our question while there is no task
FRAME_BYTES_MAX = 16 * 1024 * 1024  # a longer one is not read, and the connection is shut
REPLY_MS = WAIT_MS + 3_000  # after this long without an answer we ask again, on a new socket
POLL_MS = 200  # how soon a signal is seen while we wait
MECHANISM_MISMATCH = 0x11000002  # of zmq.h: one side speaks with keys, the other without
NOT_LISTED = 400  # what a broker says of a key that it does not know
FAILED_HANDSHAKES = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)

# ------------------------------------------------------------------------------------------------------------ handlers


def wordcount(payload):
    with open(payload["path"], "rb") as file:
        return {"words": len(file.read().split())}


HANDLERS = {"wordcount": wordcount, "echo": lambda payload: payload}


def run(task, frame):
    """Runs one task. Gives its outcome, and the payload frames that belong to it."""
    outcome = {"task": task["task"], "lease": task["lease"]}
    try:
        payload = None
        if frame is not None:
            payload = json.loads(frame) if task["payload"] == "json" else msgpack.unpackb(frame)
        result = json.dumps(HANDLERS[task["kind"]](payload)).encode()
    except Exception as error:  # whatever a handler does, the broker hears of it and tries again later
        return outcome | {"end": "fail", "error": f"{type(error).__name__}: {error}"}, []
    if len(result) > FRAME_BYTES_MAX:
        error = f"the result has {len(result)} bytes, at most {FRAME_BYTES_MAX} can be sent: store it elsewhere and give its place"
        return outcome | {"end": "fail", "dead": True, "error": error}, []
    return outcome | {"end": "done", "result": "json"}, [result]


# ---------------------------------------------------------------------------------------------------------------- wire


def keys(secret, broker):
    """Our public and secret key and the broker's public one, from their files; None where no keys are used."""
    if bool(secret) != bool(broker):
        sys.exit("LANEWAY_KEY and LANEWAY_BROKER_KEY go together")
    if not secret:
        return None
    if os.stat(secret).st_mode & 0o077:
        sys.exit(f"{secret} is open to other users: chmod 600 it, and make new keys if others read it")
    with open(secret, "rb") as ours, open(broker, "rb") as theirs:
        pair, public = tomllib.load(ours), tomllib.load(theirs)
    return pair["public_key"].encode(), pair["secret_key"].encode(), public["public_key"].encode()


class Broker:
    def __init__(self, endpoint):
        self.endpoint, self.socket = endpoint, None
        self.keys = keys(os.environ.get("LANEWAY_KEY"), os.environ.get("LANEWAY_BROKER_KEY"))
        self.session = secrets.token_hex(8)  # one life of this process

    def ask(self, kind, body, frames=(), give_up=lambda: False):
        """Asks until there is an answer: its type, its body, its payload frames. None when it gave up."""
        question = [bytes([0x4C, 0x57, 1, kind]), msgpack.packb({"session": self.session} | body), *frames]
        while True:
            if self.socket is None:
                self.socket = zmq.Context.instance().socket(zmq.REQ)
                self.socket.setsockopt(zmq.LINGER, 0)
                if self.keys:
                    self.socket.curve_publickey, self.socket.curve_secretkey, self.socket.curve_serverkey = self.keys
                self.handshakes, self.told_broken_off = self.socket.get_monitor_socket(FAILED_HANDSHAKES), False
                self.socket.connect(self.endpoint)
            self.socket.send_multipart(question)
            deadline = time.monotonic() + REPLY_MS / 1_000
            while time.monotonic() < deadline and not give_up():
                if self.socket.poll(POLL_MS):
                    header, body, *frames = self.socket.recv_multipart()
                    return header[3], msgpack.unpackb(body), frames
                self.exit_if_shut_out()
            # A REQ socket that has asked can only hear: another question needs another socket.
            self.socket.disable_monitor()
            self.handshakes.close()
            self.socket.close()
            self.socket = None
            if give_up():
                return None
            print("no answer, asking again", file=sys.stderr)

    def exit_if_shut_out(self):
        """A broker that is there and says that it does not let us in never will; one that is away is waited for."""
        while self.handshakes.poll(0):
            event = recv_monitor_message(self.handshakes)
            if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH and event["value"] == NOT_LISTED:
                sys.exit(f"the broker at {self.endpoint} does not know our key")
            if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and event["value"] == MECHANISM_MISMATCH:
                sys.exit(f"{self.endpoint} takes peers with keys only or without keys only: see LANEWAY_KEY")
            # It may be on its way up or down, so this is no reason to end.
            if self.told_broken_off:
                continue
            self.told_broken_off = True
            print(f"{self.endpoint} broke the handshake off: is it well, and the broker's key the right one?", file=sys.stderr)


def work(endpoint, kinds, run, **ready):
    """Takes tasks of these kinds until it is stopped. `ready` is what READY says besides."""
    stopped = []

    def stop(signum, _):
        stopped.append(signum)
        signal.signal(signum, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    broker = Broker(endpoint)
    ready |= {"kinds": kinds, "wait_ms": WAIT_MS}
    place = {"ack": 0}  # the last TASKS that arrived, so that the broker takes back at once what did not
    outcomes, results = [], []  # of the last task, said until the broker has answered that they are on disk
    while True:
        # The last question, after a signal, takes no task. It settles the outcomes and gives back what is on the way.
        last = bool(stopped)
        question = ready | place | {"max": 0 if last else 1, "outcomes": outcomes}
        answer = broker.ask(READY, question, results, lambda: bool(stopped) and not last)
        if answer is None:
            continue
        kind, body, frames = answer
        if kind == ERR:
            print(f"refused: {body}", file=sys.stderr)
            if not body.get("retry"):
                sys.exit(1)
            if body["code"] == "hello_first":  # another start of the broker counts anew
                place = {"ack": 0}
            time.sleep(body.get("after_ms", 200) / 1_000)
            continue
        outcomes, results = [], []  # the answer followed their commit
        if kind == TASKS:
            place = {"epoch": body["epoch"], "ack": body["seq"]}
            for task in body["tasks"]:
                # Frames stand in the order of the tasks: the payload, then what an earlier run saved.
                payload = frames.pop(0) if "payload" in task else None
                if "checkpoint" in task:
                    frames.pop(0)
                outcome, result = run(task, payload)
                print(f"task {task['task']} {task['kind']}: {outcome['end']}", file=sys.stderr)
                outcomes.append(outcome)
                results += result
        elif last or (kind == WAIT and body["reason"] == "draining"):
            break
        else:
            time.sleep(body["after_ms"] / 1_000)
    broker.ask(BYE, {})


def main(endpoint="tcp://127.0.0.1:7733", *kinds):
    work(endpoint, list(kinds or HANDLERS), run)


if __name__ == "__main__":
    main(*sys.argv[1:])
