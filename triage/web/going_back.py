"""Back to where a form was, once what it asked for is done."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.responses import RedirectResponse


def go_back(
    request: Request, *, otherwise: str = "/", mark: str = "", with_query: bool = False
) -> Response:
    """Send the browser back to the page that it came from, or `otherwise` where it does not say.

    Only the path counts, and what is shown there: where the browser says it came from could be
    another site.

    Args:
        request: the form's.
        otherwise: a path of ours.
        mark: the fragment to go to, such as "#finding-1".
        with_query: whether the page's query is kept.
    """
    came_from = urlsplit(request.headers.get("referer", ""))
    path = came_from.path or otherwise
    query = f"?{came_from.query}" if with_query and came_from.query else ""
    place = "/" if path.startswith("//") else f"{path}{query}{mark}"
    return RedirectResponse(place, status_code=303)
