"""Ticket: what the caller holds of a request that an engine has taken."""


class Ticket:
    """One request in an engine.

    Attributes:
        prompt_tokens: tokens of the prompt.
        cached_tokens: how many of them need not be run, because a saved row held them; 0 until the
            request's turn comes, final when its first token does.
        cancelled: it has been asked to end.
    """

    def __init__(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.cached_tokens = 0
        self.cancelled = False

    def cancel(self) -> None:
        """Ask that the request end, with reason `cancelled`; from any thread, any number of times.

        It is over within one step, wherever it is: waiting, in its prompt or in its answer. One
        that has ended stays as it ended.
        """
        # Nobody need be woken: while a request is in the engine, its thread goes from step to step.
        self.cancelled = True
