"""A web server inside of a sandbox, reached from here: `.venv/bin/python examples/webserver.py`."""

import time
from http.client import HTTPConnection, HTTPException

from mayfly import Sandbox

APP = """
from http.server import BaseHTTPRequestHandler, HTTPServer


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"hello from {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


HTTPServer(("127.0.0.1", 8080), Hello).serve_forever()
"""

with Sandbox() as sandbox:
    sandbox.files.write("app.py", APP)
    server = sandbox.commands.run(["python3", "app.py"], background=True)
    with sandbox.expose(8080) as forward:
        for _ in range(100):
            try:
                connection = HTTPConnection(forward.host, forward.port, timeout=30)
                connection.request("GET", "/a/page")
                print(connection.getresponse().read().decode())
                break
            except (HTTPException, OSError):
                time.sleep(0.2)  # it is not up yet
    server.kill()
    print(server.wait().status)
