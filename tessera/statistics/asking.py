"""What may be asked: one method per statistic, alike for a consortium and for a simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from models.counting import Counting, Question
from models.targets import InvalidModel
from orchestrator.analytics.columns import By, Columns
from orchestrator.analytics.marginals import questions as synthesis_questions
from orchestrator.analytics.questions import ManyBounds, Questions
from privacy.errors import InvalidInput

Result = TypeVar("Result")
Limits = tuple[float, float]


class Analytics(Generic[Result]):
    """Asks for statistics; each question is one study of its own, or several together are one (:meth:`together`).

    ``by`` parts patients into public groups: ``"cohort"``, ``"pattern"`` (which modalities a patient has), a modality,
    a category, the outcome, or a number with its cuts, ``("age", (50, 65))``. More groups do not cost more privacy, but
    leave fewer patients in each beside the same noise.

    Args:
        columns: what the datasets have.
        ask: sends what is to be counted and returns what answers.
    """

    def __init__(self, columns: Columns, ask: Callable[[Counting], Result]) -> None:
        self._columns, self._ask = columns, ask

    @property
    def questions(self) -> Questions:
        """The same questions without sending them, for :meth:`together`."""
        return Questions(columns=self._columns)

    def together(self, *questions: Question) -> Result:
        """Ask several questions in one study: one approval, one round, and one epsilon for all of them.

        The noise of each grows with the root of the number of their tables.

        Raises:
            InvalidInput: no question, or too many tables or cells.
        """
        try:
            asked = Counting(questions=tuple(questions))
        except InvalidModel as error:
            raise InvalidInput(str(error)) from error
        return self._ask(asked)

    def counts(self, *by: By) -> Result:
        """Ask how many patients there are, altogether or in the groups of each of ``by``."""
        return self.together(self.questions.counts(*by))

    def missingness(self, *names: str, by: By | None = None) -> Result:
        """Ask which share of patients lacks each modality or variable; all modalities by default."""
        return self.together(self.questions.missingness(*names, by=by))

    def means(self, *names: str, by: By | None = None, bounds: ManyBounds | None = None) -> Result:
        """Ask for mean and standard deviation of numbers; ``bounds`` by name cut values: narrow, less noise."""
        return self.together(self.questions.means(*names, by=by, bounds=bounds))

    def quantiles(
        self,
        name: str,
        probabilities: Sequence[float] = (0.25, 0.5, 0.75),
        *,
        by: By | None = None,
        bins: int = 32,
        bounds: Limits | None = None,
    ) -> Result:
        """Ask for quantiles of a number, read from a noised histogram of ``bins`` bins over public bounds."""
        return self.together(self.questions.quantiles(name, probabilities, by=by, bins=bins, bounds=bounds))

    def scales(self, *names: str) -> Result:
        """Ask for the quartiles of numbers, to scale them by: of all that are variables of their own, or of some.

        All are one study with one epsilon. In a consortium, ``run.rescaled(schema)`` makes the schema's next version
        of the answer.
        """
        return self.together(*self.questions.quartiles(*names))

    def synthesis(self) -> Result:
        """Ask for the tables that mocks can follow: each variable of its own, by the classes of the outcome.

        All are one study with one epsilon. In a consortium, ``run.marginals()`` makes the file of the answer by which
        ``tessera datasite ingest --mock`` draws made-up rows.
        """
        return self.together(*synthesis_questions(self._columns))

    def histogram(
        self,
        name: str,
        *,
        bins: int = 20,
        edges: Sequence[float] = (),
        by: By | None = None,
        bounds: Limits | None = None,
    ) -> Result:
        """Ask how many patients lie between edges of a number, in each level of a category, or in each class."""
        return self.together(self.questions.histogram(name, bins=bins, edges=edges, by=by, bounds=bounds))

    def cross_table(self, first: By, second: By) -> Result:
        """Ask how many patients are in each group of one thing and each of another."""
        return self.together(self.questions.cross_table(first, second))

    def correlations(self, *names: str, by: By | None = None, bounds: ManyBounds | None = None) -> Result:
        """Ask for the correlations of two to ten numbers, among patients of whom all of them are known."""
        return self.together(self.questions.correlations(*names, by=by, bounds=bounds))

    def kaplan_meier(self, time: str, event: str, *, bins: int = 24, by: By | None = None) -> Result:
        """Ask for the survival curve of the outcome with the columns ``time`` and ``event``.

        Times are known by the intervals of the schema's outcome; ``bins`` takes them together to at most so many.
        """
        return self.together(self.questions.kaplan_meier(time, event, bins=bins, by=by))

    def log_rank(self, time: str, event: str, *, by: By, bins: int = 24) -> Result:
        """Ask whether groups differ in survival; the p-value counts the noise."""
        return self.together(self.questions.log_rank(time, event, by=by, bins=bins))

    def __repr__(self) -> str:
        return f"Analytics of {', '.join(self._columns.modalities)} in {', '.join(self._columns.cohorts)}"
