"""Text queries that select photographs: our own set, a file of the user's, and the authors' table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from widespectrum.errors import InputError
from widespectrum.prompts.tables import is_one_line, read_table
from widespectrum.registry import unknown_name

from .taxonomy import ELEMENTS

__all__ = ["Query", "calibrated", "query_set", "query_texts", "read_authors_index"]

_AUTHORS = ("commit_key", "query", "threshold", "negative_threshold", "negative_prompts")
_AUTHORS_OPTIONAL = ("source_bucket", "n_negative_prompts", "message", "n_images")
_COSINE = re.compile(r"-?[0-9]*\.?[0-9]+")


def _check_rule(where: str, kind: str, cosine: float | None, share: float | None) -> None:
    if (cosine is None) == (share is None):
        raise InputError(
            f"{where}: expected either {kind}threshold or {kind}share, got {'both' if share else 'neither'}"
        )
    if cosine is not None and not -1 <= cosine <= 1:
        raise InputError(f"{where}: {kind}threshold must be a cosine from -1 to 1, got {cosine}")
    if share is not None and not 0 < share < 1:
        raise InputError(f"{where}: {kind}share must be above 0 and below 1, got {share}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One text query. It keeps what is similar enough to `text`, unless it is too similar to one of `negatives`.

    Similar enough: a cosine of at least `threshold`, or among the `share` of all images that are most similar. Too
    similar: a cosine above `negative_threshold`, or among the `negative_share`. `element` is `class.element`, empty
    where a query was not written for one.
    """

    name: str
    text: str
    element: str = ""
    negatives: tuple[str, ...] = ()
    threshold: float | None = None
    share: float | None = None
    negative_threshold: float | None = None
    negative_share: float | None = None

    def __post_init__(self) -> None:
        where = f"query {self.name!r}"
        for text in (self.name, self.text, *self.negatives):
            if not isinstance(text, str) or not text.strip() or not is_one_line(text):
                raise InputError(f"{where}: a name and a text must be one line that is not empty, got {text!r}")
        if self.element and self.element not in ELEMENTS:
            raise unknown_name("element", self.element, ELEMENTS, "widespectrum build ava_anti_aesthetic select --help")
        _check_rule(where, "", self.threshold, self.share)
        if self.negatives:
            _check_rule(where, "negative_", self.negative_threshold, self.negative_share)


def query_texts(queries: Iterable[Query]) -> list[str]:
    """Every text of the queries and of their negatives once, in order: what has to be embedded."""
    return list(dict.fromkeys(text for query in queries for text in (query.text, *query.negatives)))


def _load(path: Path | None) -> tuple[str, dict[str, Any]]:
    """The name and the content of a query file; None is our own set."""
    name = "queries.json" if path is None else str(path)
    try:
        if path is None:
            text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
        else:
            text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}); expected a query file in JSON") from None
    except ValueError as error:
        raise InputError(f"{name}: expected a query file in JSON, got something else ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("queries"), list) or not content["queries"]:
        raise InputError(
            f"{name}: expected a JSON object with a list of 'queries', like the queries.json of the package"
        )
    return name, content


def _number(where: str, entry: Mapping[str, Any], key: str) -> float | None:
    value = entry.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InputError(f"{where}: {key} must be a number, got {value!r}")
    return value


def _rules(where: str, entry: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, float | None]:
    """The two rules of a query: its own ones come before the defaults, a threshold before a share."""
    rules: dict[str, float | None] = {}
    for kind in ("", "negative_"):
        source = entry if {f"{kind}threshold", f"{kind}share"} & set(entry) else defaults
        cosine = _number(where, source, f"{kind}threshold")
        rules |= {f"{kind}threshold": cosine}
        rules |= {f"{kind}share": _number(where, source, f"{kind}share") if cosine is None else None}
    return rules


def _query(name: str, position: int, entry: Any, content: Mapping[str, Any], defaults: Mapping[str, Any]) -> Query:
    where = f"{name}, query {position}"
    known = {"name", "element", "text", "negatives", "threshold", "share", "negative_threshold", "negative_share"}
    if not isinstance(entry, dict) or not {"name", "text"} <= set(entry) <= known:
        raise InputError(f"{where}: expected an object with name and text, and if wanted {', '.join(sorted(known))}")
    negatives = [*content.get("negatives", []), *entry.get("negatives", [])]
    try:
        return Query(
            name=entry["name"],
            text=entry["text"],
            element=entry.get("element", ""),
            negatives=tuple(dict.fromkeys(negatives)),
            **_rules(where, entry, defaults),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _family(name: str, content: Mapping[str, Any], family: str) -> Mapping[str, Any]:
    families: Mapping[str, Mapping[str, Any]] = content.get("families", {})
    if family not in families:
        raise InputError(f"{name} has no thresholds for {family!r}; it has them for {', '.join(families) or 'none'}")
    return families[family]


def query_set(path: Path | None = None, *, share: float | None = None, family: str = "") -> list[Query]:
    """The queries of a file like our `queries.json`, or of our own set.

    A query without an own rule takes the cosines of `family` where one is named, else `share`, else the shares of the
    file. InputError names the query that is wrong.
    """
    name, content = _load(path)
    defaults = _family(name, content, family) if family else dict(content)
    if share is not None and not family:
        defaults = {**defaults, "share": share, "threshold": None}
    found = [_query(name, n, entry, content, defaults) for n, entry in enumerate(content["queries"], start=1)]
    _check_names(name, found)
    return found


def _check_names(source: str, queries: Sequence[Query]) -> None:
    seen: set[str] = set()
    for query in queries:
        if query.name in seen:
            raise InputError(f"{source}: the query {query.name!r} stands there twice; rename or remove one")
        seen.add(query.name)


def calibrated(queries: Sequence[Query], thresholds: Mapping[str, float]) -> str:
    """A query file (JSON) in which the share that each query keeps has become the cosine that it came to.

    `thresholds`: query name → cosine. Rules of negatives stay as they are: each negative text has its own distribution.
    """
    entries = []
    for query in queries:
        fixed = asdict(replace(query, share=None, threshold=thresholds[query.name]))
        entries.append({key: value for key, value in fixed.items() if value not in (None, "", ())})
    return json.dumps({"negatives": [], "queries": entries}, indent=1, ensure_ascii=False) + "\n"


def _cosine(where: str, row: Mapping[str, Any], column: str) -> float:
    text = str(row[column]).strip()
    if not _COSINE.fullmatch(text):
        raise InputError(f"{where}: {column} must be a decimal number, got {text[:40]!r}")
    return float(text)


def _negative_prompts(where: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        texts = json.loads(row["negative_prompts"])
    except ValueError:
        texts = None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(
            f"{where}: negative_prompts must be a JSON list of texts, got {str(row['negative_prompts'])[:80]!r}"
        )
    if (count := row.get("n_negative_prompts")) is not None and str(count) != str(len(texts)):
        raise InputError(f"{where}: n_negative_prompts says {count}, but {len(texts)} are listed; correct one of them")
    return tuple(texts)


def read_authors_index(path: Path) -> list[Query]:
    """The authors' queries with their thresholds and negatives, from their table of commits (`ava_commit_index.csv`).

    A query is called by its commit key; the table assigns no elements. Kept: cosine ≥ threshold; dropped: the cosine of
    any negative > the negative threshold.
    """
    queries = []
    for number, row in read_table(path, _AUTHORS, _AUTHORS_OPTIONAL):
        where = f"{path}, row {number}"
        try:
            query = Query(
                name=row["commit_key"],
                text=row["query"],
                negatives=_negative_prompts(where, row),
                threshold=_cosine(where, row, "threshold"),
                negative_threshold=_cosine(where, row, "negative_threshold"),
            )
        except InputError as error:
            raise InputError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
        queries.append(query)
    _check_names(str(path), queries)
    return queries
