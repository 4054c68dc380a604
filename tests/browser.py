"""Chromium without a window: opens a page, tells what it does, takes pictures."""

import base64
import json
import os
import shutil
import subprocess
import tempfile

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 120


def program():
    """Return the path of a browser, None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """A browser with one page; `errors` and `requests` are what that did since `open`."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(
            prefix="edgeq-browser-", ignore_cleanup_errors=True
        )
        read, self.into = os.pipe()
        self.out, write = os.pipe()
        options = (
            "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "
            "--hide-scrollbars --remote-debugging-pipe --disable-background-networking "
            f"--user-data-dir={self.folder.name} about:blank"
        )
        command = f"exec {program()} {options} 3<&{read} 4>&{write}"
        self.process = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(read, write), stderr=subprocess.DEVNULL
        )
        os.close(read)
        os.close(write)
        self.number, self.rest, self.session = 0, b"", None
        self.errors, self.requests, self.loaded = [], [], False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(SECONDS)
        os.close(self.into)
        os.close(self.out)
        self.folder.cleanup()

    def call(self, method, **options):
        """Return what the browser answers to a command of its protocol."""
        self.number += 1
        sent = {"id": self.number, "method": method, "params": options}
        if self.session:
            sent["sessionId"] = self.session
        os.write(self.into, json.dumps(sent).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def open(self, path, width=1280, height=900, dark=False, phone=False):
        """Open a file and wait until it is loaded."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        scale = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **scale)
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.errors, self.requests, self.loaded = [], [], False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self.loaded:
            self._next()

    def ask(self, expression):
        """Return the value of JavaScript on the page."""
        made = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in made, made
        return made["result"].get("value")

    def press_enter(self):
        """Press Enter on what has the focus."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        self.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def picture(self, clip=None):
        """Return what is seen as the bytes of a PNG file.

        Args:
            clip: x, y, width and height on the page; None for the window.
        """
        more = {}
        if clip is not None:
            names = ("x", "y", "width", "height")
            more = {"clip": {**dict(zip(names, clip, strict=True)), "scale": 1},
                    "captureBeyondViewport": True}  # fmt: skip
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", **more)["data"])

    def _next(self):
        while b"\0" not in self.rest:
            more = os.read(self.out, 1 << 20)
            assert more, "the browser ended"
            self.rest += more
        text, _, self.rest = self.rest.partition(b"\0")
        message = json.loads(text)
        method, params = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(params["args"])
        return message
