"""The process that scores with a published version: `python -P worker.py FOLDER`, asked and answering over its pipes.

It is run as a file and imports nothing of morphad, because the version brings its own: what scores is the code that was
published. It ends when whoever asks does.

A frame is a length (4 bytes, big-endian), a JSON object, and the bytes that the object's `sizes` announces:

- asked: `number`, `heatmaps`, `sizes`; the bytes of encoded images.
- answered: `number`, `answers`, `sizes`; the bytes of heatmaps (PNG, 8 bit grey), 0 for none. An answer has `score`,
  `rejected`, `p_value`, `reason`, or `error`. The first frame has `failed` instead: why the version cannot be loaded,
  or "".
"""

import json
import os
import queue
import re
import signal
import struct
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

Facts = dict[str, Any]
Frame = tuple[Facts, list[bytes]]

_LENGTH = struct.Struct(">I")


def write_frame(stream: BinaryIO, facts: Facts, parts: Sequence[bytes] = ()) -> None:
    """Send facts and parts."""
    text = json.dumps({**facts, "sizes": [len(part) for part in parts]}).encode()
    stream.write(_LENGTH.pack(len(text)) + text)
    for part in parts:
        stream.write(part)
    stream.flush()


def read_frame(stream: BinaryIO) -> Frame | None:
    """Facts and parts as sent; None where the other side has ended."""
    length = stream.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        return None
    text = stream.read(*_LENGTH.unpack(length))
    if len(text) < _LENGTH.unpack(length)[0]:
        return None
    facts: Facts = json.loads(text)
    parts = [stream.read(size) for size in facts["sizes"]]
    return None if [len(part) for part in parts] != facts["sizes"] else (facts, parts)


def main(folder: str) -> None:
    """Load the version and answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks; its end is ours
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get in between the answers
    asked: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, asked), daemon=True).start()
    try:
        model = _load(folder)
    except Exception as error:  # whatever the code of a version does
        write_frame(answers, {"failed": _in_words(error)})
        raise
    write_frame(answers, {"failed": ""})
    while True:
        facts, images = asked.get()
        rows = _predict(model, images, facts["heatmaps"])
        heatmaps = [row.pop("heatmap", b"") for row in rows]
        write_frame(answers, {"number": facts["number"], "answers": rows}, heatmaps)


def _listen(stream: BinaryIO, asked: "queue.SimpleQueue[Frame]") -> None:
    """Read questions while others are worked at: who asks two ahead must not wait for us to read them."""
    while frame := read_frame(stream):
        asked.put(frame)
    os._exit(0)  # nobody is there to be answered


def _load(folder: str) -> Any:
    from mlflow.pyfunc import load_model  # noqa: PLC0415 -- whoever imports this file for its frames has no need of it

    model = load_model(folder, suppress_warnings=True)
    used = getattr(sys.modules.get("morphad"), "__file__", None)
    if used and Path(folder, "code").resolve() not in Path(used).resolve().parents:
        raise ImportError(f"its own code is in {folder}/code, but {used} was loaded")
    return model


def _predict(model: Any, images: list[bytes], heatmaps: bool) -> list[Facts]:
    """Answers; a version refuses images together, so those of a refusal are asked again in halves."""
    import pandas as pd  # noqa: PLC0415

    try:
        frame = model.predict(pd.DataFrame({"image": images}), params={"heatmap": True} if heatmaps else None)
    except Exception as error:  # of any kind, in code that we do not know: it must not lose the other images
        if len(images) == 1:
            return [{"error": re.sub(r"^row \d+: ", "", _in_words(error))}]
        half = len(images) // 2
        return _predict(model, images[:half], heatmaps) + _predict(model, images[half:], heatmaps)
    return [_answer(row) for row in frame.to_dict("records")]


def _answer(row: Facts) -> Facts:
    # None arrives as NaN where a column is of floats.
    rejected, p_value = (None if row[name] is None or row[name] != row[name] else row[name] for name in _OPTIONAL)
    return {
        "score": float(row["score"]),
        "rejected": None if rejected is None else bool(rejected),
        "p_value": None if p_value is None else float(p_value),
        "reason": str(row.get("reason") or ""),  # versions of earlier morphads have none
        "heatmap": row.get("heatmap") or b"",
    }


_OPTIONAL = ("rejected", "p_value")


def _in_words(error: Exception) -> str:
    """The first line of an error; its kind before it, unless it is one that says what is wrong with the input."""
    text = (str(error).strip() or "no reason given").splitlines()[0]
    return text if type(error).__name__ in {"MlflowException", "BadInputError"} else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    main(*sys.argv[1:])
