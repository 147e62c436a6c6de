"""A W&B server on 127.0.0.1 that speaks as much of the protocol as the real client needs.

GraphQL mutations open runs, hand out upload addresses and commit artifacts; ``file_stream`` carries
history and summary; ``PUT`` takes files. What arrives is kept for the tests to look at. The server can
also be slow, or refuse everything.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "someone"


@dataclass
class Run:
    """One run, as it arrived."""

    name: str
    variables: dict[str, Any] = field(default_factory=dict)
    opened: int = 0
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exitcode: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Settings, without the client's wrapping."""
        facts = json.loads(self.variables.get("config") or "{}")
        return {key: entry["value"] for key, entry in facts.items() if key != "_wandb"}


@dataclass
class Artifact:
    """One artifact, as it arrived."""

    name: str
    kind: str
    run: str
    committed: bool = False
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Loopback:
    """The server's memory, and its mood.

    Args:
        delay: seconds before each answer.
        refuses: HTTP status of every answer, 0 = as a healthy server answers.
        sweep: text of a sweep file, for an agent to ask for; ``todo`` are the runs it is told to make,
            parameters by id.
    """

    delay: float = 0.0
    refuses: int = 0
    url: str = ""
    sweep: str = ""
    todo: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)

    def everything(self) -> bytes:
        """Every byte that arrived."""
        return b"\n".join(self.bodies)

    def graphql(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one query or mutation."""
        operation = request.get("operationName") or request["query"].split("(")[0].split()[1]
        answer = getattr(self, f"_{operation}", None)
        if answer is None:
            self.unknown.append(operation)
            return {"data": None, "errors": [{"message": f"no {operation} here"}]}
        return {"data": answer(request.get("variables") or {})}

    def stream(self, name: str, body: dict[str, Any]) -> None:
        """History lines, the summary, and the end of a run."""
        run = self.runs.setdefault(name, Run(name))
        for file, part in (body.get("files") or {}).items():
            for number, line in enumerate(part["content"], start=part.get("offset", 0)):
                if file == "wandb-history.jsonl":
                    run.history[number] = json.loads(line)
                if file == "wandb-summary.json":
                    run.summary = json.loads(line)
        if body.get("complete"):
            run.exitcode = body.get("exitcode")

    def _ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        teams: dict[str, Any] = {"edges": []}
        facts = {"id": "VXNlcjox", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}"}
        return {"viewer": {**facts, "teams": teams}}

    def _UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables.get("name") or variables["id"]
        there = name in self.runs
        run = self.runs.setdefault(name, Run(name))
        run.opened += 1
        run.variables.update({key: v for key, v in variables.items() if v is not None})
        owner = {"id": "ZQ==", "name": ENTITY}
        project = {"id": "cHJvamVjdA==", "name": variables.get("project"), "entity": owner}
        bucket = {
            "id": name,
            "name": name,
            "displayName": variables.get("displayName") or name,
            "description": None,
            "config": variables.get("config"),
            "sweepName": variables.get("sweep"),
            "project": project,
            "historyLineCount": 0,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": not there}}

    def _CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = variables["run"]
        files = [{"name": f, "uploadUrl": f"{self.url}/put/{run}/{f}"} for f in variables["files"]]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}

    def _MarkRunFilesUploaded(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"markRunFilesUploaded": {"success": True}}

    def _XXHashDigestsEnabled(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"xxhashDigestsEnabled": False}}

    def _FetchArtifactDigestAlgorithm(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": None}

    def _CreateArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        given = variables.get("input") or variables
        number = f"artifact{len(self.artifacts)}"
        name = given["artifactCollectionName"]
        kind = given["artifactTypeName"]
        self.artifacts[number] = Artifact(name, kind, given.get("runName") or "")
        made = {"id": number, "state": "PENDING", "artifactSequence": None}
        return {"createArtifact": {"artifact": {**made, "__typename": "Artifact"}}}

    def _CreateArtifactFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        specs = variables["input"]["artifactFiles"]
        edges = [{"node": self._artifact_file(spec)} for spec in specs]
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _artifact_file(self, spec: dict[str, Any]) -> dict[str, Any]:
        number, name = spec["artifactID"], spec["name"]
        return {
            "storagePath": f"stored/{number}/{name}",
            "uploadUrl": f"{self.url}/artifact/{number}/{name}",
            "uploadHeaders": [],
            "uploadMultipartUrls": None,
            "artifact": {"id": number},
        }

    def _CreateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        number = variables["artifactID"]
        upload = f"{self.url}/artifact/{number}/wandb_manifest.json"
        file = {"id": "f", "uploadUrl": upload, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": number, "file": file}}}

    def _UpdateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        number = variables["artifactManifestID"]
        upload = f"{self.url}/artifact/{number}/wandb_manifest.json"
        file = {"id": "f", "uploadUrl": upload, "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": number, "file": file}}}

    def _CommitArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        number = variables["artifactID"]
        self.artifacts[number].committed = True
        return {"commitArtifact": {"artifact": {"id": number, "digest": "d"}}}

    def _SweepWithRuns(self, _: dict[str, Any]) -> dict[str, Any]:
        facts = {"id": "c3dlZXA=", "name": "sweep1", "state": "RUNNING", "config": self.sweep}
        return {"project": {"sweep": {**facts, "runs": {"edges": []}}}}

    def _CreateAgent(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": "agent1"}}}

    def _Heartbeat(self, _: dict[str, Any]) -> dict[str, Any]:
        told: list[dict[str, Any]] = []
        if self.todo:
            name, chosen = self.todo.popitem()
            args = {key: {"value": value} for key, value in chosen.items()}
            told = [{"type": "run", "run_id": name, "program": "privbench", "args": args}]
        return {"agentHeartbeat": {"agent": {"id": "agent1"}, "commands": json.dumps(told)}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that was stopped hangs up in the middle: nothing to say."""


@contextmanager
def served(delay: float = 0.0, refuses: int = 0) -> Iterator[Loopback]:
    """A server on a free port of 127.0.0.1, until the block ends."""
    memory = Loopback(delay, refuses)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            if self._moody():
                return
            with memory.lock:
                facts = json.loads(body)
                if self.path.endswith("/graphql"):
                    self._answer(memory.graphql(facts))
                elif self.path.endswith("/file_stream"):
                    memory.stream(self.path.split("/")[-2], facts)
                    self._answer({})
                else:
                    memory.unknown.append(self.path)
                    self._answer({}, 404)

        def do_PUT(self) -> None:
            body = self._body()
            if self._moody():
                return
            _, where, owner, name = self.path.split("/", 3)
            with memory.lock:
                held = memory.runs if where == "put" else memory.artifacts
                held[owner].files[name] = body
            self._answer({})

        def do_GET(self) -> None:
            if not self._moody():
                memory.unknown.append(self.path)
                self._answer({}, 404)

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            memory.bodies.append(body)
            return body

        def _moody(self) -> bool:
            memory.stopping.wait(memory.delay)
            if memory.refuses:
                self._answer({"errors": [{"message": "refused"}]}, memory.refuses)
            return bool(memory.refuses)

        def _answer(self, facts: dict[str, Any], status: int = 200) -> None:
            text = json.dumps(facts).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except OSError:
                self.close_connection = True  # the client was stopped meanwhile

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = _Server(("127.0.0.1", 0), Handler)
    memory.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        memory.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
