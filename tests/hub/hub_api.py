"""What the loopback Hub answers: one handler per page of the HTTP API, and the table of pages."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote

import yaml
from hub_repos import Blob, Commit, Refusal, Repo, make_blob, missing
from starlette.responses import JSONResponse, Response

MEMBERS = {"hf_writer": ("writer", {"acme", "writer"}), "hf_reader": ("reader", {"reader"})}
"""Token to user name and the namespaces in which that user may write."""

LARGE = (".parquet", ".png", ".jpg", ".bin", ".zip")
LARGE_BYTES = 10 * 1024 * 1024


class Call(NamedTuple):
    """A request on its way to its handler."""

    method: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    user: tuple[str, set[str]]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    """The handlers, and what they know."""

    def __init__(self, url: str) -> None:
        self.url, self.lfs, self.page = url, True, 1000
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}

    def user(self, headers: dict[str, str]) -> tuple[str, set[str]]:
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in MEMBERS:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return MEMBERS.get(token, ("", set()))

    def _is_own(self, repo: Repo, rev: str, user: str) -> bool:
        """Whether a revision is the user's own pull request."""
        number = rev.removeprefix("refs/pr/")
        return number.isdigit() and self._numbered(repo, number)["author"] == user

    def find(self, call: Call, kind: str, id: str, *, write: bool = False, rev: str = "") -> Repo:
        """The repository, if the user may see it (and, with `write`, change it or his own pull request `rev`)."""
        member = id.partition("/")[0] in call.user[1]
        repo = self.repos.get((kind or "models", id))
        if repo is None or (repo.private and not member):
            # a stranger is not told which names exist
            raise missing("repository", id) if call.user[0] else Refusal(401, "Repository not found", "RepoNotFound")
        if write and not call.user[0]:
            raise Refusal(401, "Invalid username or password.")
        if write and not member and not self._is_own(repo, rev, call.user[0]):
            raise Refusal(403, f"You have no write access to {id}: pass create_pr=1 to open a pull request")
        return repo

    def create(self, call: Call) -> Any:
        wanted = call.json
        name, kind = f"{wanted['organization'] or call.user[0]}/{wanted['name']}", f"{wanted.get('type') or 'model'}s"
        if not call.user[0]:
            raise Refusal(401, "Invalid username or password.")
        if name.partition("/")[0] not in call.user[1]:
            raise Refusal(403, f"You don't have the rights to create a {kind[:-1]} under this namespace")
        url = f"{self.url}/{'' if kind == 'models' else kind + '/'}{name}"
        if (kind, name) in self.repos:
            raise Refusal(409, f"You already created this {kind[:-1]} repo", url=url)
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.repos[kind, name] = repo = Repo(kind, name, private, wanted.get("sdk"))
        first = {".gitattributes": make_blob(b"*.parquet filter=lfs diff=lfs merge=lfs -text\n", lfs=False)}
        repo.commit("refs/heads/main", first, "", ("initial commit", "", call.user[0]))
        return {"url": url, "name": name, "id": repo.commits[repo.refs["refs/heads/main"]].oid[:24]}

    def whoami(self, call: Call) -> Any:
        if not call.user[0]:
            raise Refusal(401, "Invalid username or password.")
        return {"type": "user", "name": call.user[0], "orgs": [{"name": name} for name in call.user[1]]}

    def validate_yaml(self, call: Call) -> Any:
        try:
            parts = call.json["content"].split("---\n", 2)
            good = isinstance(yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else {}, dict)
        except yaml.YAMLError:
            good = False
        if not good:
            raise Refusal(400, "Invalid YAML", errors=[{"message": "the front matter is not a mapping"}])
        return {"errors": [], "warnings": []}

    def preupload(self, call: Call, kind: str, id: str, rev: str) -> Any:
        tree = self.find(call, kind, id, write="create_pr" not in call.query, rev=rev).at(rev).tree
        answers = []
        for file in call.json["files"]:
            lfs = self.lfs and (file["path"].endswith(LARGE) or file["size"] > LARGE_BYTES)
            answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            if there := tree.get(file["path"]):
                answer["oid"] = there.sha256 if there.lfs else there.oid
            answers.append(answer)
        return {"files": answers}

    def lfs_batch(self, call: Call, kind: str, id: str) -> Any:
        self.find(call, kind, id, write="ref" in call.json, rev=call.json.get("ref", {}).get("name", ""))
        answers: list[dict[str, Any]] = [dict(entry) for entry in call.json["objects"]]
        for answer in (each for each in answers if each["oid"] not in self.objects):
            href = f"{self.url}/lfs/{answer['oid']}"
            answer["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
        return {"transfer": "basic", "objects": answers}

    def lfs_put(self, call: Call, oid: str) -> Any:
        if hashlib.sha256(call.body).hexdigest() != oid:
            raise Refusal(400, "the content is not what was announced")
        self.objects[oid] = call.body
        return Response()

    def lfs_verify(self, call: Call, oid: str) -> Any:
        if oid not in self.objects or len(self.objects[oid]) != call.json["size"]:
            raise Refusal(404, "object not found")
        return {}

    def commit(self, call: Call, kind: str, id: str, rev: str) -> Any:
        proposal = "create_pr" in call.query
        repo = self.find(call, kind, id, write=not proposal, rev=rev)
        lines = [json.loads(line) for line in call.body.splitlines()]
        header, parent, ref = lines[0]["value"], repo.at(rev), repo.ref(rev)
        if header.get("parentCommit", parent.oid) != parent.oid:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        if not call.user[0] or ref is None or ref.startswith("refs/tags/"):
            raise Refusal(401 if not call.user[0] else 400, "cannot commit there")
        tree = dict(parent.tree)
        for line in lines[1:]:
            self._apply(tree, line["key"], line["value"])
        if proposal:
            number = len(repo.pull_requests) + 1
            ref = f"refs/pr/{number}"
            about = {"num": number, "title": header["summary"], "status": "open", "base": parent.oid}
            repo.pull_requests.append({**about, "author": call.user[0]})
        made = repo.commit(ref, tree, parent.oid, (header["summary"], header["description"], call.user[0]))
        base = f"{self.url}/{'' if kind == 'models' else kind + '/'}{id}"
        more = {"pullRequestUrl": f"{base}/discussions/{len(repo.pull_requests)}"} if proposal else {}
        return {"success": True, "commitOid": made.oid, "commitUrl": f"{base}/commit/{made.oid}", **more}

    def _apply(self, tree: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if key == "file":
            tree[path] = make_blob(base64.b64decode(value["content"]), lfs=False)
        elif key == "lfsFile":
            if value["oid"] not in self.objects:
                raise Refusal(400, f"LFS object {value['oid']} of {path} was never uploaded")
            tree[path] = make_blob(self.objects[value["oid"]], lfs=True)
        elif key == "deletedFile" and path not in tree:
            raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        else:
            for gone in [each for each in tree if each == path or each.startswith(path.rstrip("/") + "/")]:
                del tree[gone]

    def info(self, call: Call, kind: str, id: str, rev: str = "main") -> Any:
        repo = self.find(call, kind, id)
        commit = repo.at(rev)
        about = {"id": id, "_id": commit.oid[:24], "author": id.partition("/")[0], "sha": commit.oid, "sdk": repo.sdk}
        about |= {
            "private": repo.private,
            "gated": "auto" if repo.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
        }
        about |= {"createdAt": commit.date, "lastModified": commit.date}
        return {**about, "siblings": [{"rfilename": path} for path in sorted(commit.tree)]}

    def listing(self, call: Call, kind: str) -> Any:
        shown = [repo for repo in self.repos.values() if repo.kind == kind and not repo.private]
        author = call.query.get("author")
        return [self.info(call, kind, repo.id) for repo in shown if author in (None, repo.id.partition("/")[0])]

    def _entry(self, commit: Commit, path: str) -> dict[str, Any]:
        last = {"id": commit.oid, "title": commit.title, "date": commit.date}
        blob = commit.tree.get(path)
        if blob is None:
            oid = hashlib.sha1(path.encode()).hexdigest()
            return {"type": "directory", "oid": oid, "size": 0, "path": path, "lastCommit": last}
        size = len(blob.content)
        more = {"lfs": {"oid": blob.sha256, "size": size, "pointerSize": 130}} if blob.lfs else {}
        return {"type": "file", "oid": blob.oid, "size": size, "path": path, "lastCommit": last, **more}

    def tree(self, call: Call, kind: str, id: str, rev: str, path: str = "") -> Any:
        commit = self.find(call, kind, id).at(rev)
        top = f"{path}/" if path else ""
        inside = sorted(name[len(top) :] for name in commit.tree if name.startswith(top))
        if path and not inside:
            raise missing("entry", path)
        found = {"/".join(name.split("/")[: depth + 1]) for name in inside for depth in range(name.count("/") + 1)}
        if call.query.get("recursive", "").lower() != "true":
            found = {name for name in found if "/" not in name}
        names, start = sorted(found), int(call.query.get("cursor", 0))
        shown = [self._entry(commit, top + name) for name in names[start : start + self.page]]
        headers = {}
        if start + self.page < len(names):
            more = "&".join(f"{key}={value}" for key, value in {**call.query, "cursor": start + self.page}.items())
            here = f"{self.url}/api/{kind}/{id}/tree/{quote(rev, safe='')}{'/' + quote(path) if path else ''}"
            headers["Link"] = f'<{here}?{more}>; rel="next"'
        return JSONResponse(shown, headers=headers)

    def paths_info(self, call: Call, kind: str, id: str, rev: str) -> Any:
        commit = self.find(call, kind, id).at(rev)
        wanted = parse_qs(call.body.decode()).get("paths", [])
        folders = {name[: cut.start()] for name in commit.tree for cut in re.finditer("/", name)}
        return [self._entry(commit, path) for path in wanted if path in commit.tree or path in folders]

    def refs(self, call: Call, kind: str, id: str) -> Any:
        groups: dict[str, list[dict[str, str]]] = {"heads": [], "tags": [], "pr": []}
        for ref, oid in self.find(call, kind, id).refs.items():
            group, name = ref.split("/", 2)[1:]
            groups[group].append({"name": name, "ref": ref, "targetCommit": oid})
        known = {"branches": groups["heads"], "tags": groups["tags"], "converts": []}
        return {**known, "pullRequests": groups["pr"]} if "include_prs" in call.query else known

    def commits(self, call: Call, kind: str, id: str, rev: str) -> Any:
        repo = self.find(call, kind, id)
        chain, commit = [], repo.commits.get(repo.at(rev).oid)
        while commit:
            about = {"id": commit.oid, "title": commit.title, "message": commit.description, "date": commit.date}
            chain.append({**about, "authors": [{"user": commit.author}]})
            commit = repo.commits.get(commit.parent)
        return chain

    def new_ref(self, call: Call, kind: str, id: str, what: str, name: str) -> Any:
        repo = self.find(call, kind, id, write=True)
        wanted = call.json if call.body else {}
        ref = f"refs/tags/{wanted['tag']}" if what == "tag" else f"refs/heads/{name}"
        if ref in repo.refs:
            raise Refusal(409, f"{what} {ref} exists already")
        repo.refs[ref] = repo.at(name if what == "tag" else wanted.get("startingPoint", "main")).oid
        return Response()

    def _proposal(self, repo: Repo, about: dict[str, Any]) -> dict[str, Any]:
        date = repo.at(f"refs/pr/{about['num']}").date
        more = {"author": {"name": about["author"]}, "isPullRequest": True, "createdAt": date}
        return {**about, **more, "repo": {"name": repo.id, "type": repo.kind[:-1]}}

    def discussions(self, call: Call, kind: str, id: str) -> Any:
        repo = self.find(call, kind, id)
        wanted = [(key, call.query[key]) for key in ("author", "status") if call.query.get(key, "all") != "all"]
        shown = [each for each in repo.pull_requests if all(each[key] == value for key, value in wanted)]
        return {"discussions": [self._proposal(repo, each) for each in shown], "count": len(shown), "start": 0}

    def _numbered(self, repo: Repo, number: str) -> dict[str, Any]:
        if int(number) > len(repo.pull_requests):
            raise missing("entry", f"discussion {number}")
        return repo.pull_requests[int(number) - 1]

    def discussion(self, call: Call, kind: str, id: str, number: str) -> Any:
        repo = self.find(call, kind, id)
        about = self._numbered(repo, number)
        changes = {"base": "refs/heads/main", "mergeCommitId": about.get("merged")}
        return {**self._proposal(repo, about), "events": [], "filesWithConflicts": [], "changes": changes, "diff": ""}

    def merge(self, call: Call, kind: str, id: str, number: str) -> Any:
        repo = self.find(call, kind, id, write=True)
        about = self._numbered(repo, number)
        if about["status"] != "open":
            raise Refusal(400, "this pull request is not open")
        base, theirs, ours = (repo.at(rev) for rev in (about["base"], f"refs/pr/{number}", "main"))
        paths = base.tree.keys() | theirs.tree.keys()
        changed = {path for path in paths if base.tree.get(path) != theirs.tree.get(path)}
        tree = {path: blob for path, blob in ours.tree.items() if path not in changed}
        tree |= {path: theirs.tree[path] for path in changed if path in theirs.tree}
        made = repo.commit("refs/heads/main", tree, ours.oid, (f"{about['title']} (#{number})", "", call.user[0]))
        about |= {"status": "merged", "merged": made.oid}
        return {}

    def resolve(self, call: Call, kind: str, id: str, rev: str, path: str) -> Any:
        repo = self.find(call, kind, id)
        if repo.gated and call.user[0] not in repo.readers:
            # its pages are open to all, its files are not
            status, reason = (403, f"visit {id} to ask for access") if call.user[0] else (401, "please log in")
            raise Refusal(status, f"Access to model {id} is restricted: {reason}.", "GatedRepo")
        commit = repo.at(rev)
        blob = commit.tree.get(path)
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if blob is None:
            refusal = missing("entry", path)
            refusal.headers |= headers
            raise refusal
        headers["ETag"] = f'"{blob.sha256 if blob.lfs else blob.oid}"'
        if blob.lfs:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(blob.content))}
        status, content = 200, blob.content
        if match := re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("range", "")):
            first, last = match.groups()
            begin = int(first) if first else max(len(content) - int(last), 0)
            end = min(int(last) + 1 if first and last else len(content), len(content))
            if begin >= len(content):
                raise Refusal(416, "Range Not Satisfiable")
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
            status, content = 206, content[begin:end]
        headers["Content-Length"] = str(len(content))
        return Response(b"" if call.method == "HEAD" else content, status, headers)


def _route(methods: str, path: str, handler: Any) -> tuple[str, re.Pattern[str], Any]:
    repo = r"/api/(?P<kind>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)"
    page = r"/(?:(?P<kind>datasets|spaces)/)?(?P<id>[^/]+/[^/]+)"
    return methods, re.compile(path.replace("{repo}", repo).replace("{page}", page)), handler


_REV = "(?P<rev>[^/]+)"
ROUTES = [
    _route("POST", "/api/repos/create", Api.create),
    _route("GET", "/api/whoami-v2", Api.whoami),
    _route("POST", "/api/validate-yaml", Api.validate_yaml),
    _route("POST", f"{{repo}}/preupload/{_REV}", Api.preupload),
    _route("POST", r"{page}\.git/info/lfs/objects/batch", Api.lfs_batch),
    _route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", Api.lfs_put),
    _route("POST", "/lfs/(?P<oid>[0-9a-f]{64})/verify", Api.lfs_verify),
    _route("POST", f"{{repo}}/commit/{_REV}", Api.commit),
    _route("GET", "{repo}", Api.info),
    _route("GET", f"{{repo}}/revision/{_REV}", Api.info),
    _route("GET", f"{{repo}}/tree/{_REV}", Api.tree),
    _route("GET", f"{{repo}}/tree/{_REV}/(?P<path>.+)", Api.tree),
    _route("POST", f"{{repo}}/paths-info/{_REV}", Api.paths_info),
    _route("GET", "{repo}/refs", Api.refs),
    _route("GET", f"{{repo}}/commits/{_REV}", Api.commits),
    _route("POST", "{repo}/(?P<what>branch|tag)/(?P<name>[^/]+)", Api.new_ref),
    _route("GET", "{repo}/discussions", Api.discussions),
    _route("GET", r"{repo}/discussions/(?P<number>\d+)", Api.discussion),
    _route("POST", r"{repo}/discussions/(?P<number>\d+)/merge", Api.merge),
    _route("GET", "/api/(?P<kind>models|datasets|spaces)", Api.listing),
    _route("GET HEAD", f"{{page}}/resolve/{_REV}/(?P<path>.+)", Api.resolve),
]
