"""What processes say to each other when someone wants to know what a value waits for.

One question, one answer, and no state kept about either: whoever is asked looks at its tables and
tells what they say at this moment. An answer that comes late is an answer to nobody; silence is
for the asker to notice. ``core.explaining`` asks, ``core.telling`` and ``core.telling_node``
answer.
"""

from typing import Final, TypeAlias

from freehold.wire.records import Address, Record

# What a question is about, and who can answer it:
OBJECT: Final = "object"  #: an object: its owner, or any process that holds a reference to it
TASK: Final = "task"  #: a task: the process that submitted it
RUN: Final = "run"  #: a task: the worker that it was sent to
REQUEST: Final = "request"  #: a lease that was asked for: the node
LEASE: Final = "lease"  #: a lease that was granted: the process that holds it
STORED: Final = "stored"  #: an object: the node in whose store it is, or shall be
GROUP: Final = "group"  #: a placement group: any node
PROCESS: Final = "process"  #: a process, also a dead one: its node
END: Final = "end"  #: how a process has ended: its node. Without text if it has not, so far
NAMED: Final = "named"  #: ids that begin with these hex digits (as bytes of ASCII): anyone

# What the answer to a question is to the one who refers to it:
SAME: Final = "same"  #: that process knows the very thing better
MORE: Final = "more"  #: that process knows what has become of it
NEEDS: Final = "needs"  #: it cannot go on without that
ONE_OF: Final = "one of"  #: it cannot go on without one of those that it says this of
MAY: Final = "may"  #: that may be what it waits for; it goes on with others too, or after a time


class Question(Record):
    """Whom to ask about what. ``how``: one of SAME, MORE, NEEDS, ONE_OF, MAY."""

    how: str
    to: Address
    about: str
    id: bytes


class Finding(Record):
    """What one process knows of one thing.

    ``text`` is a clause of a sentence. ``else_text`` goes on with it if the SAME or MORE question,
    of which there is at most one and it is the first, has no answer. ``name`` is the task's, for
    deadlocks; empty if the finding is about no task.
    """

    about: str
    id: bytes
    text: str
    else_text: str = ""
    name: str = ""
    questions: list[Question] = []


class Explain(Record, tag=80):
    """Anyone to anyone: what do you know of this, and who knows more?"""

    request: int
    about: str
    id: bytes


class Explanation(Record, tag=81):
    """The answer: the finding asked for, and those that it leads to in the same process."""

    request: int
    findings: list[Finding]


Asking: TypeAlias = Explain | Explanation
