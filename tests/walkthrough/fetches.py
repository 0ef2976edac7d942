"""What a page would fetch when it is opened."""

import re

from bs4 import BeautifulSoup

_FETCHING = ("src", "srcset", "poster", "data", "href", "xlink:href", "background")
_IN_STYLE = re.compile(r"url\(\s*[\"']?(?!data:|#)([^\"')]+)|@import\s+[\"']?([^\"';]+)")
# w3.org names XML vocabularies, which nothing fetches
_IN_SCRIPT = re.compile(r"(?:https?:)?//(?!www\.w3\.org/)[\w.-]+\.\w+/[^\s\"'`]*")


def fetched_parts(page: str) -> list[str]:
    """Addresses outside the page that it needs: of scripts, styles, pictures, frames. Links do not count."""
    soup = BeautifulSoup(page, "html.parser")
    found = []
    for tag in soup.find_all(True):
        if tag.name not in ("a", "area"):
            found += [str(tag[name]) for name in _FETCHING if not _inside(tag.get(name))]
        found += ["".join(groups) for groups in _IN_STYLE.findall(str(tag.get("style", "")))]
    for tag in soup.find_all("style"):
        found += ["".join(groups) for groups in _IN_STYLE.findall(tag.get_text())]
    for tag in soup.find_all("script"):
        found += _IN_SCRIPT.findall(tag.get_text())
    return found


def _inside(address: object) -> bool:
    return address is None or str(address).startswith(("data:", "#"))
