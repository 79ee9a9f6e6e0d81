"""The job of ../web_scrape.yaml for doit: `doit -f web_scrape_dodo.py -n 2 -P thread start=http://localhost:8000/ out=…`."""
# mypy: ignore-errors

import json
import sys
import time
from http.client import HTTPException
from pathlib import Path

from doit import create_after, get_var
from doit.tools import timeout

sys.path.insert(0, "..")
import web_scrape

DOIT_CONFIG = {"continue": True}
START = get_var("start")
OUT = get_var("out", "../../../out/web_scrape.json")
WORK = Path(get_var("work", "../../../out/web_scrape.work"))


def retried(function, *arguments):
    for wait in (2, 4, 8, 16):
        try:
            return function(*arguments)
        except (OSError, HTTPException) as error:
            print(error, file=sys.stderr)
            time.sleep(wait)  # this holds one of the -n workers
    return function(*arguments)


def task_links():
    """The pages that the first one links to."""
    return {"actions": [(links,)]}


def links():
    if START is None:
        raise ValueError("say start=http://…")
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "links.json").write_text(json.dumps(retried(web_scrape.links, START)))


def urls():
    return json.loads((WORK / "links.json").read_text())


@create_after(executed="links")
def task_page():
    """What a page says; kept for an hour."""
    for url in urls():
        yield {"name": url, "actions": [(page, (url,))], "uptodate": [timeout(3600), was_read]}


def was_read(task, values):  # noqa: ARG001 - doit passes both by name
    return values.get("error") is None


def page(url):
    try:
        return {"page": retried(web_scrape.page, url), "error": None}
    except Exception as error:
        return {"page": None, "error": repr(error)}  # were it to fail, save would not run


@create_after(executed="page")
def task_save():
    """Write what could be read, and fail if something could not."""
    return {
        "actions": [(save,)],
        "getargs": {"pages": ("page", "page"), "errors": ("page", "error")},
        "uptodate": [False],
        "verbosity": 2,
    }


def save(pages, errors):
    if any(pages.values()):
        web_scrape.save([pages[url] for url in urls()], OUT)
    return not any(errors.values())
