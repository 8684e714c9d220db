"""The text that the sample models learn from: the docstrings of Python's standard library.

Every Python carries it, so nothing has to be downloaded; another version of Python has
slightly other docstrings.
"""

import functools
import hashlib
import importlib
import inspect
import json
import string
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

SEED = 20

# Modules that Python 3.10 to 3.14 have on every platform and that import without side effects.
MODULES = """
    abc argparse array ast asyncio.base_events asyncio.events asyncio.futures asyncio.locks
    asyncio.queues asyncio.runners asyncio.streams asyncio.subprocess asyncio.tasks base64 bdb
    binascii bisect builtins bz2 calendar cmath cmd code codecs codeop collections
    collections.abc compileall concurrent.futures._base concurrent.futures.process
    concurrent.futures.thread configparser contextlib copy csv ctypes.util dataclasses datetime
    decimal difflib dis doctest email._header_value_parser email.charset email.feedparser
    email.generator email.header email.headerregistry email.message email.policy email.utils
    enum filecmp fileinput fnmatch fractions ftplib functools gc getopt getpass gettext glob
    graphlib gzip hashlib heapq hmac html html.parser http http.client http.cookiejar
    http.cookies http.server imaplib importlib.abc importlib.metadata importlib.resources
    importlib.util inspect _pyio ipaddress itertools json json.decoder json.encoder keyword
    linecache locale logging logging.config logging.handlers lzma mailbox math mimetypes
    modulefinder multiprocessing.connection multiprocessing.context multiprocessing.managers
    multiprocessing.pool multiprocessing.queues multiprocessing.shared_memory netrc numbers
    operator optparse os pathlib pdb pickle pickletools pkgutil platform plistlib poplib
    posixpath pprint profile pstats py_compile pyclbr pydoc queue quopri random re reprlib
    rlcompleter runpy sched secrets selectors shelve shlex shutil signal site smtplib socket
    socketserver statistics string stringprep struct subprocess symtable sys sysconfig tabnanny
    tarfile tempfile textwrap threading time timeit tokenize trace traceback tracemalloc types
    typing unicodedata unittest.async_case unittest.case unittest.loader unittest.mock
    unittest.result unittest.runner unittest.suite unittest.util urllib.parse urllib.request
    urllib.response urllib.robotparser uuid warnings wave weakref wsgiref.handlers
    wsgiref.headers wsgiref.simple_server xml.dom.minidom xml.etree.ElementTree xml.sax.handler
    xml.sax.saxutils xmlrpc.client xmlrpc.server zipapp zipfile zipimport zlib zoneinfo
""".split()

# Id 0 is no character: it ends a docstring, and stands for a character that was blanked out.
CHARACTERS = "\0\n " + string.ascii_lowercase + string.digits + string.punctuation


@dataclass(frozen=True)
class Docstring:
    """One docstring in lower-case ASCII, and what it documents."""

    module: str
    kind: str  # module, class, function, method or property
    name: str
    text: str


@functools.cache
def docstrings() -> tuple[list[Docstring], list[Docstring]]:
    """Return the docstrings to train on and those held out, without duplicates."""
    # In an interpreter of its own, because frameworks change the modules that they import:
    # torch replaces `inspect.getfile`, typing_extensions parts of `typing`.
    command = [sys.executable, "-I", "-S", __file__]
    printed = subprocess.run(command, check=True, capture_output=True).stdout
    found = {item["text"]: Docstring(**item) for item in json.loads(printed)}
    train, held_out = split(found)
    return [found[text] for text in train], [found[text] for text in held_out]


def split(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the texts to train on and those held out (one in ten), both in mixed order.

    Each text has its place from its own hash: a text more or less moves no other.
    """
    mixed = sorted((hashlib.sha256(text.encode()).digest(), text) for text in texts)
    train = [text for digest, text in mixed if digest[-1] % 10]
    return train, [text for digest, text in mixed if not digest[-1] % 10]


def _docstrings_of(module_name: str) -> Iterator[Docstring]:
    try:
        module = importlib.import_module(module_name)
    except ImportError:  # some builds of Python lack bz2 or lzma
        return
    found: list[tuple[str, str, object]] = [("module", module_name.rpartition(".")[2], module)]
    for name, member in sorted(vars(module).items()):
        if getattr(member, "__module__", None) != module_name:
            continue  # imported from elsewhere, and met there
        if inspect.isclass(member):
            found.append(("class", name, member))
            for key, value in sorted(vars(member).items()):
                if isinstance(value, property):
                    found.append(("property", key, value))
                elif not inspect.isclass(value) and hasattr(value, "__name__"):
                    found.append(("method", key, value))
        elif callable(member):
            found.append(("function", name, member))
    for kind, name, thing in found:
        if isinstance(thing.__doc__, str):
            text = _plain(inspect.cleandoc(thing.__doc__))
            if len(text) > 20:
                yield Docstring(module_name, kind, name, text)


def _plain(text: str) -> str:
    return "".join(c for c in text.expandtabs().lower() if c in CHARACTERS[1:])


if __name__ == "__main__":
    unique = {found.text: found for module in MODULES for found in _docstrings_of(module)}
    print(json.dumps([asdict(found) for found in unique.values()]))
