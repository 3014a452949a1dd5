"""jinja2 as transformers sets it up: the truth for the template interpreter.

The environment is the one that transformers itself compiles chat templates with; only the clock is
pinned. Errors come back as text.
"""
import datetime

import jinja2
from transformers.utils import chat_template_utils

NOW = 1700000000  # 2023-11-14 22:13:20 UTC


def compile_template(source):
    template = chat_template_utils._compile_jinja_template(source)
    moment = datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None)
    template.environment.globals["strftime_now"] = moment.strftime
    template.globals["strftime_now"] = moment.strftime
    return template


def render(source, variables):
    """(text, None), or (None, message) where jinja2 raises. The message is "" for Python's own
    exceptions and for syntax errors, whose words are not part of the language."""
    try:
        text = compile_template(source).render(**variables)
        text.encode("utf-8")
        return text, None
    except jinja2.TemplateSyntaxError:
        return None, ""
    except jinja2.TemplateError as e:
        return None, str(e.message) or type(e).__name__
    except Exception:  # whatever Python raises inside a template
        return None, ""
