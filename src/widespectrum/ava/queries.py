"""Text queries that select photographs: our own set, a file of the user's, and the authors' table."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from widespectrum.errors import InputError, UnknownNameError
from widespectrum.prompts.tables import is_one_line, read_table

from .taxonomy import ELEMENTS

__all__ = ["Query", "calibrated", "query_set", "query_texts", "read_authors_index"]

_AUTHORS = ("commit_key", "query", "threshold", "negative_threshold", "negative_prompts")
_AUTHORS_OPTIONAL = ("source_bucket", "n_negative_prompts", "message", "n_images")
_RULES = ("threshold", "share", "negative_threshold", "negative_share")
_OPTIONS = ("element", "negatives", *_RULES)
_FILE = ("about", "queries", "negatives", "families", *_RULES)
_COSINE = re.compile(r"-?[0-9]*\.?[0-9]+")


def _check_rule(where: str, kind: str, cosine: float | None, share: float | None) -> None:
    if (cosine is None) == (share is None):
        given = "neither" if cosine is None else "both"
        raise InputError(f"{where}: expected either {kind}threshold or {kind}share, got {given}")
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
            near = difflib.get_close_matches(self.element, ELEMENTS, n=1, cutoff=0) or [""]
            raise UnknownNameError(f"{where}: unknown element {self.element!r}; did you mean {near[0]}?")
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
            text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text)
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}); expected a query file in JSON") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: expected a query file in JSON, got something else ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("queries"), list) or not content["queries"]:
        raise InputError(
            f"{name}: expected a JSON object with a list of 'queries', like the queries.json of the package"
        )
    _check_keys(name, content, ("queries",), _FILE)
    return name, content


def _check_keys(where: str, content: Any, required: Sequence[str], known: Sequence[str]) -> None:
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected a JSON object, got {str(content)[:80]!r}")
    if missing := [key for key in required if key not in content]:
        raise InputError(f"{where}: {missing[0]!r} is missing")
    if unknown := [key for key in content if key not in (*required, *known)]:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; expected some of {', '.join(known)}")


def _number(where: str, entry: Mapping[str, Any], key: str) -> float | None:
    value = entry.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InputError(f"{where}: {key} must be a number, got {value!r}")
    return value


def _negatives(where: str, source: Mapping[str, Any]) -> list[str]:
    texts = source.get("negatives", [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{where}: negatives must be a list of texts, got {str(texts)[:80]!r}")
    return texts


def _rules(where: str, entry: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, float | None]:
    """The two rules of a query: its own ones come before the defaults."""
    rules: dict[str, float | None] = {}
    for keys in (_RULES[:2], _RULES[2:]):
        source = entry if set(keys) & set(entry) else defaults
        rules |= {key: _number(where, source, key) for key in keys}
    return rules


def _query(where: str, entry: Any, negatives: Sequence[str], defaults: Mapping[str, Any]) -> Query:
    _check_keys(where, entry, ("name", "text"), _OPTIONS)
    if not isinstance(element := entry.get("element", ""), str):
        raise InputError(f"{where}: element must be a text, got {element!r}")
    texts = tuple(dict.fromkeys([*negatives, *_negatives(where, entry)]))
    rules = _rules(where, entry, defaults)
    try:
        return Query(name=entry["name"], text=entry["text"], element=element, negatives=texts, **rules)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _family(name: str, content: Mapping[str, Any], family: str) -> Mapping[str, Any]:
    families = content.get("families", {})
    _check_keys(f"{name}, families", families, (), tuple(families))
    if family not in families:
        raise InputError(f"{name} has no thresholds for {family!r}; it has them for {', '.join(families) or 'none'}")
    _check_keys(f"{name}, families, {family}", families[family], (), _RULES)
    found: Mapping[str, Any] = families[family]
    return found


def query_set(path: Path | None = None, *, share: float | None = None, family: str = "") -> list[Query]:
    """The queries of a file like our `queries.json`, or of our own set.

    A query without an own rule takes the cosines of `family` where one is named, else `share`, else the shares of the
    file. InputError names the query that is wrong.
    """
    name, content = _load(path)
    defaults = _family(name, content, family) if family else content
    if share is not None and not family:
        defaults = {**defaults, "share": share, "threshold": None}
    negatives, entries = _negatives(name, content), enumerate(content["queries"], start=1)
    found = [_query(f"{name}, query {n}", entry, negatives, defaults) for n, entry in entries]
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
