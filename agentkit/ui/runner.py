"""The agent's side of the chat: runs in a thread, one job at a time, and posts what happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from textual.message import Message

from agentkit.errors import AgentkitError
from agentkit.events import ApprovalRequired, Notice, TurnFailed
from agentkit.ui.approval import Approval
from agentkit.ui.clean import first_of
from agentkit.ui.commands import answer, forget_if_empty
from agentkit.ui.messages import AgentEvent, Answered, ApprovalAsked, LoadFailed, Loading, Ready, TurnEnded
from agentkit.ui.protocol import ChatAgent, ChatWorkspace


class _Quit(Exception):
    """The chat was quit while it loaded."""


class Runner:
    """Loads the agent and runs its turns.

    `load`, `turn`, `new_session` and `command` belong into a thread, one after the other; `stop` and `quit`
    may be called from anywhere.

    Args:
        workspace: The opened project.
        post: Takes messages from any thread, e.g. a widget's ``post_message``.
    """

    def __init__(self, workspace: ChatWorkspace, post: Callable[[Message], object]) -> None:
        self._workspace = workspace
        self._post_message = post
        self._agent: ChatAgent | None = None
        self._cancel = threading.Event()
        self._approval: Approval | None = None
        self._quitting = False
        self._told = 0
        """Notices of the knowledge base that were shown."""

    def load(self, session: str | None) -> None:
        """Get everything ready; ends with `Ready` or `LoadFailed`."""
        try:
            notices = self._index()
            self._loading(f"loading {self._workspace.settings.model}")
            _ = self._workspace.model  # before the session: quitting meanwhile must not leave an empty one
            self._loading("opening the conversation")
            self._open(session)
            self._tell(notices)
        except _Quit:
            return
        except Exception as error:  # the screen has to tell, whatever loading dies of
            self._post(LoadFailed(error))

    def new_session(self) -> None:
        """Go on in a new session."""
        try:
            notices = self._index()
            self._open(None)
            self._tell(notices)
        except _Quit:
            return
        except Exception as error:  # told in the conversation; the thread serves on
            self._post(AgentEvent(_failure(error)))
        self._post(TurnEnded())

    def turn(self, text: str) -> None:
        """Run one turn; ends with `TurnEnded`, whatever happens."""
        assert self._agent is not None
        try:
            for event in self._agent.stream(text, approve=self._approve, cancel=self._cancel):
                self._post(AgentEvent(event))
        except Exception as error:  # told in the conversation; the thread serves on
            self._post(AgentEvent(_failure(error)))
        self._post(TurnEnded())

    def command(self, text: str, more: str = "") -> None:
        """Answer ``/tools`` and the like; ``more`` is added to the answer."""
        assert self._agent is not None
        try:
            self._post(Answered(answer(text, self._workspace, self._agent.session.id) + more))
        except Exception as error:  # told in the conversation; the thread serves on
            self._post(AgentEvent(_failure(error)))
        self._post(TurnEnded())

    def begin(self) -> None:
        """A job is about to start: earlier stops do not count for it."""
        self._cancel = threading.Event()

    def stop(self) -> None:
        """End the running turn; its text is kept and a waiting approval is denied."""
        self._cancel.set()
        if self._approval is not None:
            self._approval.answer(False)

    def quit(self) -> None:
        """Let the thread end soon: nobody listens any more."""
        self._quitting = True
        self.stop()

    def _index(self) -> Sequence[str]:
        """Bring the knowledge base in step with its folder.

        Returns:
            What it has to tell that is new.
        """
        self._loading("reading the knowledge base")
        knowledge = self._workspace.ready_knowledge(lambda name: self._loading(f"indexing {name}"))
        told, self._told = self._told, len(knowledge.notices)
        return tuple(knowledge.notices[told:])

    def _tell(self, notices: Sequence[str]) -> None:
        for text in first_of(notices):
            self._post(AgentEvent(Notice("knowledge", text)))

    def _open(self, session: str | None) -> None:
        agent, before = self._workspace.agent(session), self._agent
        if self._quitting:  # nobody knows of this session
            agent.close()
            forget_if_empty(self._workspace, agent.session.id)
            raise _Quit
        self._agent = agent
        name = str(self._workspace.settings.model)
        self._post(Ready(name, agent.session.id, agent.session.messages()))
        if before is not None:
            before.close()
            forget_if_empty(self._workspace, before.session.id)

    def _approve(self, request: ApprovalRequired) -> bool:
        self._approval = approval = Approval(request)
        if self._quitting or self._cancel.is_set():
            return False
        self._post(ApprovalAsked(approval))
        return approval.wait()

    def _loading(self, text: str) -> None:
        """Tell the next step of loading; nobody waits for it who has quit.

        Raises:
            _Quit: The chat is over.
        """
        if self._quitting:
            raise _Quit
        self._post(Loading(text))

    def _post(self, message: Message) -> None:
        if not self._quitting:
            self._post_message(message)


def _failure(error: Exception) -> TurnFailed:
    if isinstance(error, AgentkitError):
        return TurnFailed(str(error))
    return TurnFailed(f"unexpected {type(error).__name__}: {error}")
