"""Why an answer of the planner cannot stand."""

from nightsmith.record.errors import NightsmithError


class WireError(NightsmithError):
    """An answer that cannot stand; the planner is asked again."""


class Missing(WireError):
    """The goal's text does not say something that its work needs: the person has to be asked for it."""

    def __init__(self, text: str, *, asks: str):
        """`asks` is the code of the question (`nightsmith.agent.questions`)."""
        super().__init__(text)
        self.asks = asks
