"""A report as its reader sees it."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """What the tests look at: the elements, the text that is shown, and the tables of estimates."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements, self.tables, self.words = [], [], []
        self._silent = self._open = None
        self._in_table = False
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        if tag in ("script", "style"):
            self._silent = tag
        if tag == "table" and "estimates" in attrs.get("class", ""):
            self._in_table = True
            self.tables.append([])
        elif tag == "tr" and self._in_table:
            self.tables[-1].append([])
        elif tag in ("td", "th") and self._in_table:
            self.tables[-1][-1].append([attrs.get("data-value"), ""])
            self._open = tag

    def handle_endtag(self, tag):
        self._silent = None if tag == self._silent else self._silent
        self._open = None if tag == self._open else self._open
        self._in_table = self._in_table and tag != "table"

    def handle_data(self, data):
        if self._silent:
            return
        self.words.append(data)
        if self._open:
            self.tables[-1][-1][-1][1] += data

    def of(self, name):
        return [attrs for tag, attrs in self.elements if tag == name]

    def by_class(self, name):
        return [attrs for _, attrs in self.elements if name in attrs.get("class", "").split()]
