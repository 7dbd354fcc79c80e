"""The program that renders templates: a process of its own, so that a greedy template harms nobody.

Reads {"texts": {name: template}, "variables": {...}} as JSON from standard input, writes {"texts": {name: text}} or
{"problem": sentence} to standard output. The sandbox keeps templates from Python's internals; the limits on CPU time
and memory end what no sandbox can bound (nested loops, huge strings made by one filter).
"""

import json
import resource
import sys
from typing import Any

CPU_S = 2
MEMORY_BYTES = 512 * 1024 * 1024
MAX_OUTPUT = 1024 * 1024


def main() -> None:
    """Render what standard input asks for."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request: dict[str, Any] = json.load(sys.stdin)
    answer = render(request["texts"], request["variables"])
    sys.stdout.write(json.dumps(answer))


def render(texts: dict[str, str], variables: dict[str, Any]) -> dict[str, Any]:
    """Return {"texts": ...} with every template rendered, or {"problem": ...} that names the template at fault."""
    from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    rendered: dict[str, str] = {}
    for name, template in texts.items():
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, autoescape=name == "html", keep_trailing_newline=True
        )
        try:
            rendered[name] = _bounded(environment.from_string(template).generate(variables))
        except TemplateSyntaxError as error:
            return {"problem": f"{name}, line {error.lineno}: {error.message}"}
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            return {"problem": f"{name}: {type(error).__name__}: {str(error)[:300]}"}
        except (RecursionError, MemoryError, SyntaxError) as error:
            return {"problem": f"{name} is too large or too deep to render ({type(error).__name__})"}
    return {"texts": rendered}


def _bounded(pieces: Any) -> str:
    held: list[str] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_OUTPUT:
            raise ValueError(f"the rendered text is longer than {MAX_OUTPUT} characters")
        held.append(piece)
    text = "".join(held)
    text.encode()  # a template can write a lone surrogate, which no mail can hold
    return text


if __name__ == "__main__":
    main()
