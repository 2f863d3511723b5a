"""A browser tab that remembers what went wrong in it and whom it asked for anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request

ARTEFACTS = Path(__file__).parent / "artefacts"  # not in git
WIDTH_PX, HEIGHT_PX = 1280, 800
WAIT_MS = 20_000
INSIDE = ("data:", "blob:")

# Without a click on each page: MLflow opens its assistant beside everything at the first visit.
QUIET = """
try {
  localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
  localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
} catch (refused) {}
"""

PLAY = """
async (video) => {
  video.scrollIntoView({block: 'center'});
  video.muted = true;
  const late = new Promise((done) => setTimeout(done, 10000));
  await Promise.race([video.play(), late]);
  for (let i = 0; i < 100 && !(video.currentTime > 0 && video.readyState >= 2); i++)
    await new Promise((done) => setTimeout(done, 50));
  const at = video.currentTime;
  video.pause();
  return {seconds: at, ready: video.readyState, width: video.videoWidth,
          height: video.videoHeight, error: video.error && video.error.message};
}
"""


# What a browser says of a layout that needed a second frame: MLflow's, on a busy machine.
BUSY_LAYOUT = "ResizeObserver loop completed with undelivered notifications"


@dataclass
class WatchedTab:
    """`home`: the only address that the tab may ask for anything."""

    context: BrowserContext
    page: Page
    home: str = "file:///"
    problems: list[str] = field(default_factory=list)
    excused: tuple[str, ...] = ()

    @classmethod
    def open(cls, browser: Browser) -> WatchedTab:
        context = browser.new_context(viewport={"width": WIDTH_PX, "height": HEIGHT_PX})
        context.add_init_script(QUIET)
        tab = cls(context, context.new_page())
        tab.page.set_default_timeout(WAIT_MS)
        tab.page.on("console", tab._said)
        tab.page.on("pageerror", lambda error: tab.problems.append(f"page error: {error}"))
        tab.page.on("dialog", tab._asked)
        context.on("request", tab._requested)
        return tab

    def _said(self, message: ConsoleMessage) -> None:
        place = str(message.location.get("url", ""))
        if BUSY_LAYOUT in message.text:
            return
        if message.type == "error" and not place.endswith(self.excused or ("\0",)):
            self.problems.append(f"console: {message.text} ({place})")

    def _asked(self, dialog: Any) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _requested(self, request: Request) -> None:
        if not request.url.startswith((self.home, *INSIDE)):
            self.problems.append(f"request: {request.url[:200]}")

    def open_file(self, path: Path) -> None:
        """A page from disk: from now on nothing but that file may be asked for."""
        self.home = path.absolute().as_uri()
        self.page.goto(self.home)

    def open_link(self, link: str) -> None:
        """A page of a server on this machine: from now on only that server may be asked."""
        parts = urlsplit(link)
        self.home = f"{parts.scheme}://{parts.netloc}/"
        self.page.goto(link)

    def shoot(self, name: str, of: Locator | None = None) -> None:
        """Keeps a picture of the tab as it is seen, or of a part of it."""
        ARTEFACTS.mkdir(exist_ok=True)
        (of or self.page).screenshot(path=ARTEFACTS / f"{name}.png")

    def close(self) -> None:
        self.context.close()


def play(video: Locator) -> None:
    """Plays for a moment; asserts that pictures moved."""
    seen = video.evaluate(PLAY)
    assert seen["error"] is None, seen
    assert seen["seconds"] > 0 and seen["ready"] >= 2, seen
    assert seen["width"] > 0 and seen["height"] > 0, seen
