from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and the text of all and of each script."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.scripts, self._open = [], "", [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open == "script":
            self.scripts[-1] += data
        elif self._open != "style":
            self.text += data

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]
