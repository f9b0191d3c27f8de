"""MF-REC-004."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, CommandUse
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_CALLS = frozenset(
    {
        "PIL.ImageGrab.grab",
        "pyautogui.screenshot",
        "mss.mss",
        "cv2.VideoCapture",
        "sounddevice.rec",
        "pyaudio.PyAudio",
        "pyperclip.paste",
    }
)


_KEYBOARDS = ("pynput.*", "keyboard.on_*", "keyboard.hook*", "keyboard.record*")
_COMMANDS = frozenset({
    "arecord", "fswebcam", "gnome-screenshot", "grim", "import", "logkeys", "maim", "parecord", "scrot", "spectacle",
    "xdotool", "xinput", "xwd", "showkey", "script",
})  # fmt: skip


_SOURCES = frozenset({"x11grab", "alsa", "pulse", "avfoundation", "dshow", "gdigrab", "v4l2", "kmsgrab"})


def _check(fact: CallUse | CommandUse, _scene: Scene) -> Hit | None:
    if isinstance(fact, CommandUse):
        records = any(arg in _SOURCES or arg.startswith("/dev/video") for arg in fact.args)
        return Hit(f"watches a person with {fact.name}") if records or fact.name != "ffmpeg" else None
    if fact.name in _CALLS:
        return Hit(f"watches a person with {fact.name}")
    if fact.name.startswith(("pynput.", "keyboard.")):
        return Hit(f"records the keyboard or mouse with {fact.name}", severity="high")
    return Hit("records the keyboard", severity="high")


RULE = Rule(
    id="MF-REC-004",
    title="Watches keyboard, screen, camera or clipboard",
    rationale="What people type, see and say is not for a program that runs in a sandbox.",
    severity="medium",
    cwe="CWE-200",
    confidence="high",
    capabilities=("devices",),
    facts=(CallUse, CommandUse),
    only={
        CallUse: (*_CALLS, *_KEYBOARDS, "*SetWindowsHookExA"),
        CommandUse: (*_COMMANDS, "ffmpeg"),
    },
    check=_check,
    examples={
        "python": "from pynput.keyboard import Listener\nListener(on_press=print)",
        "bash": "import -window root screen.png",
    },
    near_misses={
        "python": "from PIL import Image\nImage.new('RGB', (1, 1))",
    },
    languages=("python", "bash"),
)
