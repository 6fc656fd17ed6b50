"""Images, speech and transcription: bytes out, bytes in."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib

from askonce.testing._provider.answers import (
    Answer,
    Ask,
    Json,
    binary_answer,
    event,
    event_answer,
    json_answer,
    typed_event,
)
from askonce.testing._provider.drafting import pieces, text, tokens

_AUDIO_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_SPEECH_BYTES = 4096
_SPEECH_EVENT_BYTES = 1024
_SECONDS = 3.5


def images(ask: Ask) -> Answer:
    """POST images/generations, images/edits, images/variations."""
    count = 0 if ask.fault.empty else ask.count
    drawn = [base64.b64encode(_png(ask, index)).decode() for index in range(count)]
    usage: Json = {
        "input_tokens": 20,
        "input_tokens_details": {"text_tokens": 20, "image_tokens": 0},
        "output_tokens": 272 * count,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": 272 * count},
        "total_tokens": 20 + 272 * count,
    }
    shape = {"background": "opaque", "output_format": "png", "quality": "low", "size": "1024x1024"}
    if ask.streaming:
        kind = "image_generation" if ask.record.endpoint == "images/generations" else "image_edit"
        events = [
            typed_event(
                f"{kind}.partial_image",
                b64_json=one,
                created_at=ask.created,
                partial_image_index=index,
                **shape,
            )
            for one in drawn[:1]
            for index in range(int(ask.body.get("partial_images") or 0))
        ]
        events += [
            typed_event(f"{kind}.completed", b64_json=one, created_at=ask.created, usage=usage, **shape)
            for one in drawn[:1]
        ]
        return event_answer(events)
    if ask.body.get("response_format") == "url":
        data = [{"url": f"https://images.invalid/{ask.number}/{index}.png"} for index in range(count)]
        return json_answer({"created": ask.created, "data": data})
    return json_answer(
        {"created": ask.created, "data": [{"b64_json": one} for one in drawn], **shape, "usage": usage}
    )


def _png(ask: Ask, index: int) -> bytes:
    """One pixel, a fresh one for every answer, in a file that image libraries open."""

    def section(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colour = hashlib.sha256(ask.record.body + f"{ask.number}/{index}".encode()).digest()[:3]
    return (
        b"\x89PNG\r\n\x1a\n"
        + section(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
        + section(b"IDAT", zlib.compress(b"\0" + colour))
        + section(b"IEND", b"")
    )


def speech(ask: Ask) -> Answer:
    """POST audio/speech: noise, fresh for every answer, under the name of the format asked for."""
    seed = ask.record.body + str(ask.number).encode()
    audio = b"" if ask.fault.empty else b"ID3\x04" + hashlib.shake_256(seed).digest(_SPEECH_BYTES - 4)
    parts = [
        audio[start : start + _SPEECH_EVENT_BYTES] for start in range(0, len(audio), _SPEECH_EVENT_BYTES)
    ]
    if ask.body.get("stream_format") == "sse":
        asked = tokens(str(ask.body.get("input") or ""))
        usage = {"input_tokens": asked, "output_tokens": 50, "total_tokens": asked + 50}
        events = [
            event({"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()}) for part in parts
        ]
        return event_answer([*events, event({"type": "speech.audio.done", "usage": usage})])
    kind = _AUDIO_TYPES.get(str(ask.body.get("response_format") or "mp3"), "application/octet-stream")
    return Answer(pieces=tuple(parts), content_type=kind, streamed=True)


def transcriptions(ask: Ask) -> Answer:
    """POST audio/transcriptions and audio/translations."""
    said = text(ask)
    usage: Json = {
        "type": "tokens",
        "input_tokens": 14,
        "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
        "output_tokens": tokens(said),
        "total_tokens": 14 + tokens(said),
    }
    if ask.streaming and ask.record.endpoint == "audio/transcriptions":
        events = [typed_event("transcript.text.delta", delta=piece) for piece in pieces(said)]
        return event_answer([*events, typed_event("transcript.text.done", text=said, usage=usage)])
    form = ask.body.get("response_format")
    plain = {
        "text": f"{said}\n",
        "srt": f"1\n00:00:00,000 --> 00:00:03,500\n{said}\n\n",
        "vtt": f"WEBVTT\n\n00:00:00.000 --> 00:00:03.500\n{said}\n\n",
    }
    if form in plain:
        return binary_answer(plain[form].encode(), "text/plain; charset=utf-8")
    if form == "verbose_json":
        return json_answer(_verbose(ask, said))
    translated = ask.record.endpoint == "audio/translations"
    return json_answer({"text": said} if translated else {"text": said, "usage": usage})


def _verbose(ask: Ask, said: str) -> Json:
    segment: Json = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": _SECONDS,
        "text": said,
        "tokens": list(range(tokens(said))),
        "temperature": 0.0,
        "avg_logprob": -0.25,
        "compression_ratio": 1.1,
        "no_speech_prob": 0.01,
    }
    task = "translate" if ask.record.endpoint == "audio/translations" else "transcribe"
    return {
        "task": task,
        "language": "english",
        "duration": _SECONDS,
        "text": said,
        "segments": [segment],
        "usage": {"type": "duration", "seconds": 4},
    }
