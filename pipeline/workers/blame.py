"""What becomes of a work whose worker died over it: it is done again, or at last named."""

from __future__ import annotations

from pipeline.errors import WorkerError
from pipeline.nodes import Part
from pipeline.workers.tickets import Book, Ticket, raising
from pipeline.workers.work import named

KILLS = 3  # workers that one work may cost
BARREN = 10  # workers in a row that may die before they have begun to work


def blame(
    book: Book, chain: Part, ticket: Ticket, died: str, cause: BaseException | None = None
) -> None:
    """Have a work done again; the third worker that it costs makes it an error.

    Args:
        book: where the ticket is from.
        chain: what is evaluated, to name the work's records.
        ticket: of the work.
        died: who died and how, in the plural: "worker processes died of SIGKILL".
        cause: what told of the death.
    """
    ticket.kills += 1
    if ticket.kills < KILLS:
        with book.lock:
            if ticket.state == "asked":
                book.put_back([ticket])
                book.lock.notify_all()
        return
    error = WorkerError(
        f"{KILLS} {died} over the same work: {named(chain, ticket.work)}. Find the record among "
        "them with workers=0, and drop or repair it, or give the function more memory or time."
    )
    error.__cause__ = cause
    book.finish(ticket, raising(error), 0, 0.0)
