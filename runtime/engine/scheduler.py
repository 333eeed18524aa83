"""Scheduler: what an engine does in each step, in one thread."""

import logging
import time

from gptoss_onnx.runtime.batch_sampling import BatchSampler
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.engine.choosing import Choice, choose_tokens
from gptoss_onnx.runtime.engine.entry import Entry
from gptoss_onnx.runtime.engine.inbox import Inbox
from gptoss_onnx.runtime.engine.refusals import told
from gptoss_onnx.runtime.engine.reports import Reports
from gptoss_onnx.runtime.engine.request import FinishReason
from gptoss_onnx.runtime.engine.rows import ActiveRows
from gptoss_onnx.runtime.engine.staging import Staging
from gptoss_onnx.runtime.session import Session

logger = logging.getLogger(__name__)


class Scheduler(Closing):
    """Runs prompts and answers, a chunk and a token at a time.

    Attributes:
        prompt: the entry whose prompt is being run, None if nobody's.
        rows: the slots and whose they are.
    """

    def __init__(
        self,
        session: Session,
        inbox: Inbox,
        staging: Staging,
        rows: ActiveRows,
        reports: Reports,
        most: int,
    ) -> None:
        self._session, self._inbox, self._staging, self._reports = session, inbox, staging, reports
        self._most = most  # tokens that a row holds
        self._sampler = BatchSampler()
        self.prompt: Entry | None = None
        self.rows = rows

    @property
    def busy(self) -> bool:
        """Some entry has a slot, or its prompt is being run."""
        return self.prompt is not None or bool(self.rows.entries)

    def step(self) -> None:
        """End what has been cancelled, run at most one chunk of a prompt, and give every active
        row one token.

        What fails in one entry ends that entry. What this raises concerns all: see `end_all`.
        """
        self._end_cancelled()
        self._run_prompts()
        self._run_rows()

    def end_all(self, reason: FinishReason, message: str) -> None:
        """End every entry, and forget what has been run: the next step begins anew.

        Raises what a cache that cannot be had any more raises; the entries have ended then, too.
        """
        prompt, self.prompt = self.prompt, None
        entries = [*self.rows.entries, *([] if prompt is None else [prompt])]
        for entry in entries + self._inbox.take_all():
            entry.finish(reason, message)
        self.rows.reset()
        self._staging.reset()

    def close(self) -> None:
        """Free the caches."""
        self.rows.close()
        self._staging.close()

    def _end_cancelled(self) -> None:
        for entry in self._inbox.take_cancelled():
            entry.finish("cancelled")
        if self.prompt is not None and self.prompt.ticket.cancelled:
            self.prompt.finish("cancelled")
            self.prompt = None
        for entry in self.rows.entries:
            if entry.ticket.cancelled:
                entry.finish("cancelled")
        self.rows.drop_ended()

    def _run_prompts(self) -> None:
        """Run one chunk at most.

        Entries that need none get their slots in the same step: the other choices of a prompt.
        """
        may_run = True
        while self.prompt is not None or self._begin_prompt():
            if not self._staging.ready:
                if not may_run:
                    return
                may_run = False
                self._run_chunk()
            if self.prompt is not None and self._staging.ready:
                self._admit(self.prompt)
                self.prompt = None

    def _begin_prompt(self) -> bool:
        """Take up the next entry if there is a slot for it; False if nobody's turn has come."""
        while self.rows.free:
            entry = self._inbox.take()
            if entry is None:
                return False
            if entry.request.max_new_tokens == 0:
                entry.finish("length")
                continue
            self.prompt = entry
            try:
                self._session.check_weights()
                cached = self._staging.begin(entry.context, entry.request.owner)
            except Exception as error:  # noqa: BLE001 - told to the sink
                self._fail_prompt(error)
                continue
            if not entry.retried:
                entry.begin(cached)
                self._reports.began(entry)
            return True
        return False

    def _run_chunk(self) -> None:
        begin = time.perf_counter()
        try:
            tokens = self._staging.run()
        except Exception as error:  # noqa: BLE001 - told to the sink
            self._fail_prompt(error)
            return
        self._reports.prefill(time.perf_counter() - begin, tokens)

    def _admit(self, entry: Entry) -> None:
        """Give an entry its first token and, if it goes on, a slot."""
        (choice,) = choose_tokens(self._staging.logits[None], [entry], self._sampler)
        self._give(entry, choice)
        if entry.ended is None:
            self.rows.add(entry, self._staging.state)

    def _run_rows(self) -> None:
        entries = self.rows.entries
        if not entries:
            return
        begin = time.perf_counter()
        try:
            logits = self.rows.run()
        except Exception as error:  # noqa: BLE001 - told to the sinks
            self._retry_rows(error)
            return
        choices = choose_tokens(logits, entries, self._sampler)
        for entry, choice in zip(entries, choices, strict=True):
            self._give(entry, choice)
        self._reports.step(time.perf_counter() - begin, len(entries))
        self.rows.drop_ended()

    def _give(self, entry: Entry, choice: Choice) -> None:
        if choice.error:
            entry.finish("error", choice.error)
            return
        self._reports.token(entry)
        entry.take(choice.token, choice.logprobs, self._most)

    def _fail_prompt(self, error: Exception) -> None:
        assert self.prompt is not None
        entry, self.prompt = self.prompt, None
        logger.warning("a prompt failed: %s", told(error))
        entry.finish("error", told(error))
        self._staging.reset()

    def _retry_rows(self, error: Exception) -> None:
        """Run every row again from its tokens, alone in the staging row, once.

        A failed step does not say whose fault it was. Alone, the one that cannot run ends with its
        error, and the others go on where they were.
        """
        entries = self.rows.reset()
        logger.warning("a step of %d rows failed: %s", len(entries), told(error))
        alone = len(entries) == 1
        again = [entry for entry in entries if not (alone or entry.retried)]
        for entry in entries:
            if entry not in again:
                entry.finish("error", told(error))
            entry.retried = True
        self._inbox.put_back(again)
