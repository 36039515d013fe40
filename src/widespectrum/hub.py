"""The only module that talks to the Hugging Face Hub: publishing a folder, and pinning and reading a revision.

A publication is a comparison, some commits and a tag. Whatever breaks it off, what the Hub then holds is compared anew
by the next attempt or the next run, so nothing is sent twice and nothing is remembered between runs.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from .errors import InputError
from .hub_errors import explain, explain_reading, unheard, waiting_time
from .hub_plan import (
    CARD,
    Change,
    Plan,
    RemoteFile,
    Selection,
    Target,
    batches,
    card_diff,
    card_metadata,
    compare,
    dropped_configs,
    read_card,
    select,
)

__all__ = ["Publication", "Target", "download_snapshot", "publish_folder", "resolve_revision"]

Say = Callable[[str], None]

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further attempt, where the Hub names no time itself."""

_SHA = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What came of a publication.

    `commit` is None where the repository does not exist (dry run), `tag` where no version was announced (dry run, pull
    request), `pull_request` where none was wanted or there was nothing to propose.
    """

    url: str
    plan: Plan
    commit: str | None
    tag: str | None = None
    pull_request: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    api: HfApi
    target: Target
    selection: Selection
    create_pr: bool
    dry_run: bool
    say: Say

    @property
    def where(self) -> dict[str, Any]:
        """The repository, as the functions of huggingface_hub take it."""
        return {"repo_id": self.target.repo_id, "repo_type": self.target.repo_type}

    @property
    def url(self) -> str:
        return f"{self.api.endpoint}/{self.target.repo_type}s/{self.target.repo_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What the Hub holds: the branch (or the pull request) to commit to, its last commit, its files, all tags."""

    head: str | None
    private: bool
    files: dict[str, RemoteFile]
    tags: dict[str, str]
    revision: str = "main"


def publish_folder(
    folder: Path,
    target: Target,
    *,
    create_pr: bool = False,
    dry_run: bool = False,
    token: str | None = None,
    say: Say = print,
) -> Publication:
    """Make the repository hold what `folder` holds, and tag it with the version; or propose it as a pull request.

    A repository that is missing is created. Files that are there with the same content are not sent again; files that
    are gone here are deleted there, within the configs that are published. The card goes last, the tag after it, when
    everything has been compared once more. A version that exists with other content is refused. `dry_run` says what
    would be done. Without `token`, the one of HF_TOKEN or of `hf auth login`.

    InputError where something has to be corrected; `hub_errors.HubError` where running it again is enough.
    """
    token = _token(token, needed=not dry_run)
    api = HfApi(token=token)
    job = _Job(
        api=api,
        target=target,
        selection=select(folder, target.repo_type),
        create_pr=create_pr,
        dry_run=dry_run,
        say=lambda text: say(_without(token, text)),
    )
    with _explained(job.url, token):
        return _persist(job)


def _token(token: str | None, *, needed: bool) -> str | None:
    token = token or get_token()
    if token is None and needed:
        raise InputError("no token for the Hub: run `hf auth login`, or set HF_TOKEN to a token with write access")
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
        raise InputError("the token of the Hub holds characters that no token has: copy it once more into HF_TOKEN")
    return token


@contextmanager
def _explained(what: str, token: str | None = None) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence that never shows the token."""
    try:
        yield
    except Exception as error:
        explained = explain(error, what)
        if explained is None:
            raise
        raise type(explained)(_without(token, str(explained))) from None


def _without(token: str | None, text: str) -> str:
    """A text in which the token is not shown, whoever put it there."""
    return text.replace(token, "hf_...") if token else text


def _persist(job: _Job) -> Publication:
    """Try until it is done, as long as what breaks it off may pass by itself."""
    for wait in (*WAITS, None):
        try:
            return _attempt(job)
        except Exception as error:
            asked = waiting_time(error)
            if asked is None or wait is None:
                raise
            seconds = max(asked, wait)
            reason = explain(error, job.url)
            job.say(f"{reason} Trying again in {seconds:g} s.")
            time.sleep(seconds)
    raise AssertionError


def _attempt(job: _Job) -> Publication:
    """Compare, send what is missing, check, announce."""
    state = _look(job)
    plan = compare(job.selection, state.files)
    if job.create_pr and not plan.is_done:
        state = _own_proposal(job, state)
        plan = compare(job.selection, state.files)
    _describe(job, state, plan)
    _refuse(job, state, plan)
    if job.dry_run:
        job.say("dry run: nothing was sent")
        return Publication(url=job.url, plan=plan, commit=state.head)
    if state.head is None:
        private = True if job.target.private else None
        sdk = _space_sdk(job.selection) if job.target.repo_type == "space" else None
        job.api.create_repo(**job.where, private=private, space_sdk=sdk)
        state = _look(job)
    state = _send(job, state, plan)
    if not plan.is_done:
        _check_arrived(job, state)
    if job.create_pr:
        return _proposed(job, state, plan)
    if job.target.tag not in state.tags:
        job.api.create_tag(**job.where, tag=job.target.tag, revision=state.head, tag_message=job.target.title)
    return Publication(url=job.url, plan=plan, commit=state.head, tag=job.target.tag)


def _look(job: _Job) -> _State:
    try:
        info = job.api.repo_info(**job.where)
    except RepositoryNotFoundError as error:
        # without a token the Hub answers 401 to a missing repository; with one, that is a refused token
        if error.response.status_code == 401 and job.api.token:
            raise
        return _State(head=None, private=job.target.private, files={}, tags={})
    tags = {tag.name: tag.target_commit for tag in job.api.list_repo_refs(**job.where).tags}
    return _State(head=info.sha, private=bool(info.private), files=_files(job, str(info.sha)), tags=tags)


def _files(job: _Job, revision: str) -> dict[str, RemoteFile]:
    entries = job.api.list_repo_tree(**job.where, revision=revision, recursive=True)
    return {
        entry.path: RemoteFile(entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
        for entry in entries
        if isinstance(entry, RepoFile)
    }


def _proposal_title(job: _Job) -> str:
    """The title of our pull request; it holds the digest of the content, so that the same content finds it again."""
    return f"{job.target.title} [content {job.selection.digest[:12]}]"


def _own_proposal(job: _Job, state: _State) -> _State:
    """The state of the open pull request of ours with this content, or `state` where there is none."""
    if state.head is None:
        raise InputError(f"{job.url} does not exist, so there is nothing to propose a change to: publish without --pr")
    if job.api.token is None:
        return state
    me, title = job.api.whoami()["name"], _proposal_title(job)
    for proposal in job.api.get_repo_discussions(**job.where, author=me, discussion_type="pull_request"):
        if proposal.status in ("open", "draft") and proposal.title == title:
            revision = f"refs/pr/{proposal.num}"
            head = str(job.api.repo_info(**job.where, revision=revision).sha)
            return _State(head=head, private=state.private, files=_files(job, head), tags=state.tags, revision=revision)
    return state


def _describe(job: _Job, state: _State, plan: Plan) -> None:
    """Say what is going to happen; in a dry run file by file."""
    new = ", new" if state.head is None else ""
    job.say(f"{job.target.repo_type} {job.url} {job.target.tag} ({'private' if state.private else 'public'}{new})")
    job.say(f"{plan.summary}")
    lines = plan.lines if job.dry_run else []
    for line in lines or [f"  deleted: {change.path}" for change in plan.with_status("deleted")]:
        job.say(line)
    if job.selection.left_out:
        job.say(f"left out, of no config that the card names: {', '.join(job.selection.left_out)}")
    if job.selection.leftovers:
        job.say(f"left out, hidden files and caches: {job.selection.leftovers}")
    if any(change.path == CARD for change in plan.with_status("new", "changed")):
        _describe_card(job, state)


def _describe_card(job: _Job, state: _State) -> None:
    old = _remote_card(job, state) if CARD in state.files else ""
    if job.dry_run:
        job.say(card_diff(old, read_card(job.selection.folder)))
    if dropped := dropped_configs(old, job.selection):
        job.say(
            f"note: the card on the Hub also names {', '.join(dropped)}, which this folder does not hold; the files "
            "stay there, but the new card does not name them: build these configs too if they are to stay"
        )


def _remote_card(job: _Job, state: _State) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = job.api.hf_hub_download(**job.where, filename=CARD, revision=state.head, local_dir=folder)
        return Path(path).read_text(encoding="utf-8", errors="replace")


def _refuse(job: _Job, state: _State, plan: Plan) -> None:
    """Refuse what would change a version that was announced, or silently keep a public repository public."""
    target = job.target
    if target.private and not state.private:
        raise InputError(f"{job.url} exists and is public: --private is for new ones; change it in its settings")
    tagged = state.tags.get(target.tag)
    if tagged is None or (plan.is_done and compare(job.selection, _files(job, tagged)).is_done):
        return
    raise InputError(
        f"{target.tag} of {job.url} is already commit {tagged[:12]}, with other content than this folder: "
        "raise the version (--version)"
    )


def _space_sdk(selection: Selection) -> str:
    card = selection.folder / CARD
    sdk = card_metadata(read_card(selection.folder), str(card)).get("sdk")
    if sdk not in ("gradio", "docker", "static"):
        raise InputError(f"{card}: expected `sdk: gradio` (or docker, static) in the front matter, got {sdk!r}")
    return str(sdk)


def _operations(job: _Job, group: Sequence[Change]) -> list[Any]:
    files = job.selection.files
    return [
        CommitOperationDelete(change.path)
        if change.status == "deleted"
        else CommitOperationAdd(change.path, str(files[change.path].path))
        for change in group
    ]


def _send(job: _Job, state: _State, plan: Plan) -> _State:
    """Commit what is missing, each commit on top of the one before; the state after the last."""
    groups, head, revision = batches(plan), state.head, state.revision
    for number, group in enumerate(groups, 1):
        opens = job.create_pr and revision == "main"
        part = f" ({number}/{len(groups)})" if len(groups) > 1 else ""
        made = job.api.create_commit(
            **job.where,
            operations=_operations(job, group),
            commit_message=_proposal_title(job) if job.create_pr else job.target.title + part,
            revision=None if opens else revision,
            parent_commit=head,
            create_pr=opens,
        )
        head, revision = made.oid, made.pr_revision or revision
        if len(groups) > 1:
            job.say(f"commit {number} of {len(groups)}: {head[:12]}")
    return _State(head=head, private=state.private, files=state.files, tags=state.tags, revision=revision)


def _check_arrived(job: _Job, state: _State) -> None:
    """Compare once more before anything is announced."""
    missing = [
        change.path
        for change in compare(job.selection, _files(job, str(state.head))).changes
        if change.status != "same"
    ]
    if missing:
        raise InputError(
            f"{job.url} took the commit but not {', '.join(missing)}, so it was not tagged: see whether a .gitignore "
            "there leaves them out, or a file changed here meanwhile, and run the same command again"
        )


def _proposed(job: _Job, state: _State, plan: Plan) -> Publication:
    number = state.revision.rpartition("/")[2]
    url = f"{job.url}/discussions/{number}" if state.revision != "main" else None
    return Publication(url=job.url, plan=plan, commit=state.head, pull_request=url)


@contextmanager
def _reading(repo_id: str, repo_type: str, revision: str | None) -> Iterator[None]:
    """As `_explained`, for what is read: advice on writing helps nobody there."""
    token = get_token()
    try:
        yield
    except Exception as error:
        explained = explain_reading(error, repo_id, repo_type, revision, has_token=token is not None)
        if explained is None:
            raise
        raise type(explained)(_without(token, str(explained))) from None


def resolve_revision(repo_id: str, repo_type: str, revision: str | None = None) -> str:
    """The commit (40 hex digits) that a branch, a tag or the start of a commit stands for; None: the main branch.

    A full commit is given back without asking. InputError where there is no such repository or revision.
    """
    if revision is not None and _SHA.fullmatch(revision):
        return revision
    with unheard(), _reading(repo_id, repo_type, revision):
        return str(HfApi().repo_info(repo_id, repo_type=repo_type, revision=revision).sha)


def download_snapshot(
    repo_id: str,
    repo_type: str,
    revision: str | None = None,
    *,
    patterns: Sequence[str] | None = None,
    but_not: Sequence[str] = (),
) -> Path:
    """Download a repository (or the files that match `patterns`, and none of `but_not`) into the cache; the folder.

    What is there is not loaded again, and a download that was cut short goes on.
    """
    with unheard(), _reading(repo_id, repo_type, revision):
        return Path(
            huggingface_hub.snapshot_download(
                repo_id,
                repo_type=repo_type,
                revision=revision,
                allow_patterns=list(patterns) if patterns is not None else None,
                ignore_patterns=list(but_not) or None,
            )
        )
