#!/usr/bin/env python3
"""GGUF files and block formats in numpy: read, write, encode, decode.

Reading:   f = GGUF("m.gguf"); f.meta["general.name"]; f.tensors["output.weight"].shape
           x = f.array("output.weight")         float32, numpy order (rows first)
Writing:   write_gguf(path, meta, tensors) with meta a list of (key, type, value) and
           tensors a list of (name, format, shape in numpy order, bytes-like)
Formats:   encode("Q4_K", x) -> uint8 array; decode("Q4_K", raw, count) -> float32

The encoders search scale and minimum of every block for the least squared error,
weighted per column if importances are given.  They are written from the block layouts
and make valid files for any GGUF engine, but other (equally valid) bytes than other
quantizers.  Shapes are in numpy order here; the file stores them reversed.

`ggufio.py --self-check` compares every decoder with the PyPI package `gguf` when that
is installed, and checks round trips; `ggufio.py FILE` lists a file.
"""
import struct
import sys

import numpy as np

# name -> (type id in the file, values per block, bytes per block)
FORMATS = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210), "BF16": (30, 1, 2),
}
FORMAT_OF_ID = {v[0]: k for k, v in FORMATS.items()}

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
_SCALAR = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q",
           I64: "<q", F64: "<d"}
ALIGN = 32
CHUNK = 1 << 20           # values encoded at once, so that the search needs little memory


def size_bytes(fmt, count):
    """Bytes of `count` values in a format; count must fill whole blocks."""
    _, per, size = FORMATS[fmt]
    if count % per:
        raise ValueError("%d values do not fill %s blocks of %d" % (count, fmt, per))
    return count // per * size


# ---------------------------------------------------------------- file
def _string(s):
    b = s.encode("utf-8")
    return struct.pack("<Q", len(b)) + b


def _value(typ, val):
    if typ == STR:
        return _string(val)
    if typ == ARR:
        item, values = val
        head = struct.pack("<IQ", item, len(values))
        return head + b"".join(_value(item, v) for v in values)
    return struct.pack(_SCALAR[typ], val)


def write_gguf(path, meta, tensors, align=ALIGN):
    """Write a GGUF v3 file; returns its size in bytes."""
    pad = lambda n: -n % align
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta))
    for key, typ, val in meta:
        head += _string(key) + struct.pack("<I", typ) + _value(typ, val)
    at = 0
    for name, fmt, shape, raw in tensors:
        size = size_bytes(fmt, int(np.prod(shape)))
        if memoryview(raw).nbytes != size:
            raise ValueError("%s: %d bytes given, %s %s needs %d" % (name, memoryview(raw).nbytes, fmt, shape, size))
        head += _string(name) + struct.pack("<I", len(shape)) + struct.pack("<%dQ" % len(shape), *reversed(shape))
        head += struct.pack("<IQ", FORMATS[fmt][0], at)
        at += size + pad(size)
    with open(path, "wb") as f:
        f.write(head + b"\0" * pad(len(head)))
        for _, _, _, raw in tensors:
            f.write(raw)
            f.write(b"\0" * pad(memoryview(raw).nbytes))
        return f.tell()


class TensorInfo:
    """One entry of the tensor table.  shape is in numpy order, offset counts from the file's start."""

    def __init__(self, name, shape, type_id, offset):
        self.name, self.shape, self.type_id, self.offset = name, tuple(shape), type_id, offset
        self.format = FORMAT_OF_ID.get(type_id, "type %d" % type_id)

    @property
    def count(self):
        return int(np.prod(self.shape, dtype=np.int64))


class GGUF:
    """A GGUF file opened for reading: `meta` (key -> value), `types` (key -> type), `item_types`
    (key of an array -> type of its items), `tensors`."""

    def __init__(self, path):
        self.map = np.memmap(path, np.uint8, "r")
        self._at = 0
        if bytes(self._take(4)) != b"GGUF":
            raise ValueError("%s is not a GGUF file" % path)
        version = self._scalar("<I")
        if version not in (2, 3):
            raise ValueError("%s has GGUF version %d, known are 2 and 3" % (path, version))
        n_tensor, n_meta = self._scalar("<Q"), self._scalar("<Q")
        self.meta, self.types, self.item_types, self.tensors = {}, {}, {}, {}
        for _ in range(n_meta):
            key, typ = self._string(), self._scalar("<I")
            if typ == ARR:
                self.item_types[key] = struct.unpack_from("<I", self.map, self._at)[0]
            self.types[key], self.meta[key] = typ, self._read(typ)
        entries = []
        for _ in range(n_tensor):
            name, dims = self._string(), self._scalar("<I")
            shape = [self._scalar("<Q") for _ in range(dims)][::-1]
            entries.append((name, shape, self._scalar("<I"), self._scalar("<Q")))
        align = self.meta.get("general.alignment", ALIGN)
        start = self._at + -self._at % align
        for name, shape, type_id, offset in entries:
            self.tensors[name] = TensorInfo(name, shape, type_id, start + offset)

    def _take(self, n):
        if self._at + n > len(self.map):
            raise ValueError("the file ends inside its header")
        self._at += n
        return self.map[self._at - n:self._at]

    def _scalar(self, form):
        return struct.unpack(form, self._take(struct.calcsize(form)).tobytes())[0]

    def _string(self):
        return self._take(self._scalar("<Q")).tobytes().decode("utf-8")

    def _read(self, typ):
        if typ == STR:
            return self._string()
        if typ == ARR:
            item, n = self._scalar("<I"), self._scalar("<Q")
            return [self._read(item) for _ in range(n)]
        return self._scalar(_SCALAR[typ])

    def entries(self):
        """The metadata as write_gguf takes it."""
        return [(k, self.types[k], (self.item_types[k], v) if self.types[k] == ARR else v) for k, v in self.meta.items()]

    def raw(self, name):
        """The stored bytes of a tensor."""
        t = self.tensors[name]
        return self.map[t.offset:t.offset + size_bytes(t.format, t.count)]

    def array(self, name):
        """A tensor as float32 in numpy order."""
        t = self.tensors[name]
        return decode(t.format, self.raw(name), t.count).reshape(t.shape)


# ---------------------------------------------------------------- search of block scales
def _f16(x):
    """Rounded to what the file can hold."""
    return x.astype(np.float16).astype(np.float32)


def _safe(x):
    """x with zeros replaced by one, for divisions whose result is then multiplied by zero."""
    return np.where(x == 0, np.float32(1), x)


def _fit_symmetric(x, w, low, high, tries):
    """Best d per row for x ~ d*q with q in low..high.  x, w [n, k] -> d [n]."""
    n = np.arange(len(x))
    big = x[n, np.abs(x).argmax(1)]                 # signed value of largest magnitude goes to `low`
    best, best_err = np.zeros(len(x), np.float32), np.full(len(x), np.inf, np.float32)
    for side in (low, high):
        for f in tries:
            d = big / np.float32(side) * np.float32(f)
            q = np.clip(np.rint(x / _safe(d)[:, None]), low, high)
            qq, xq = (w * q * q).sum(1), (w * x * q).sum(1)
            d = np.where(qq > 0, xq / _safe(qq), d)     # least squares for these q
            err = (w * (x - d[:, None] * q) ** 2).sum(1)
            better = err < best_err
            best, best_err = np.where(better, d, best), np.where(better, err, best_err)
    return best


def _fit_affine(x, w, top, tries, positive_min=False):
    """Best (d, m) per row for x ~ d*q + m, q in 0..top.  With positive_min: m <= 0 as the
    K formats need (they subtract a minimum that is never negative)."""
    lo, hi = x.min(1), x.max(1)
    if positive_min:
        lo, hi = np.minimum(lo, 0), np.maximum(hi, 0)
    best_d, best_m = np.zeros_like(lo), np.zeros_like(lo)
    best_err = np.full(len(x), np.inf, np.float32)
    sw, sx = w.sum(1), (w * x).sum(1)
    for f in tries:
        d = (hi - lo) / np.float32(top) * np.float32(f)
        m = lo + (hi - lo) * np.float32((1 - f) / 2)
        for _ in range(2):
            q = np.clip(np.rint((x - m[:, None]) / _safe(d)[:, None]), 0, top)
            wq = w * q
            sq, sqq, sqx = wq.sum(1), (wq * q).sum(1), (wq * x).sum(1)
            det = sw * sqq - sq * sq
            fit_d = np.where(det > 1e-20, (sw * sqx - sq * sx) / np.where(det > 1e-20, det, 1), d)
            fit_m = (sx - fit_d * sq) / sw
            if positive_min:
                only = sqx / _safe(sqq)                 # the best d when the minimum has to be zero
                fit_d = np.where(fit_m > 0, np.where(sqq > 0, only, d), fit_d)
                fit_m = np.minimum(fit_m, 0)
            d, m = np.maximum(fit_d, 0).astype(np.float32), fit_m.astype(np.float32)
            q = np.clip(np.rint((x - m[:, None]) / _safe(d)[:, None]), 0, top)
            err = (w * (x - d[:, None] * q - m[:, None]) ** 2).sum(1)
            better = err < best_err
            best_d, best_m = np.where(better, d, best_d), np.where(better, m, best_m)
            best_err = np.where(better, err, best_err)
    return best_d, best_m


SYMMETRIC_TRIES = [0.80, 0.85, 0.90, 0.94, 0.97, 1.0, 1.04, 1.08, 1.13]
AFFINE_TRIES = [0.72, 0.78, 0.84, 0.89, 0.94, 1.0, 1.05]


# ---------------------------------------------------------------- 32-value formats
def _join(parts):
    """Concatenate the byte fields of all blocks: each [n, bytes]."""
    return np.concatenate([np.ascontiguousarray(p).view(np.uint8).reshape(len(p), -1) for p in parts], 1)


def _half(x):
    return x.astype("<f2").reshape(-1, 1)


def _nibbles(q):
    """[n, 32] -> [n, 16]: value j in the low, value j+16 in the high half of byte j."""
    q = q.astype(np.uint8)
    return (q[:, :16] & 15) | ((q[:, 16:] & 15) << 4)


def _fifth_bits(q):
    return np.packbits((q.astype(np.uint8) >> 4) & 1, axis=1, bitorder="little")


def _encode_q8_0(x, w):
    d = _f16(np.abs(x).max(1) / 127)
    q = np.clip(np.rint(x / _safe(d)[:, None]), -127, 127)
    return _join([_half(d), q.astype(np.int8)])


def _encode_q4_0(x, w):
    d = _f16(_fit_symmetric(x, w, -8, 7, SYMMETRIC_TRIES))
    q = np.clip(np.rint(x / _safe(d)[:, None]), -8, 7) + 8
    return _join([_half(d), _nibbles(q)])


def _encode_q5_0(x, w):
    d = _f16(_fit_symmetric(x, w, -16, 15, SYMMETRIC_TRIES))
    q = np.clip(np.rint(x / _safe(d)[:, None]), -16, 15) + 16
    return _join([_half(d), _fifth_bits(q), _nibbles(q)])


def _encode_q4_1(x, w):
    d, m = map(_f16, _fit_affine(x, w, 15, AFFINE_TRIES))
    q = np.clip(np.rint((x - m[:, None]) / _safe(d)[:, None]), 0, 15)
    return _join([_half(d), _half(m), _nibbles(q)])


def _encode_q5_1(x, w):
    d, m = map(_f16, _fit_affine(x, w, 31, AFFINE_TRIES))
    q = np.clip(np.rint((x - m[:, None]) / _safe(d)[:, None]), 0, 31)
    return _join([_half(d), _half(m), _fifth_bits(q), _nibbles(q)])


def _halves(b):
    """f16 field [n, 2] -> float32 [n, 1]."""
    return np.ascontiguousarray(b).view("<f2").astype(np.float32)


def _split_nibbles(b):
    return np.concatenate([b & 15, b >> 4], 1).astype(np.float32)


def _split_bits(b):
    return np.unpackbits(b, axis=1, bitorder="little").astype(np.float32) * 16


def _decode_q8_0(b):
    return np.ascontiguousarray(b[:, 2:]).view(np.int8).astype(np.float32) * _halves(b[:, :2])


def _decode_q4_0(b):
    return (_split_nibbles(b[:, 2:]) - 8) * _halves(b[:, :2])


def _decode_q4_1(b):
    return _split_nibbles(b[:, 4:]) * _halves(b[:, :2]) + _halves(b[:, 2:4])


def _decode_q5_0(b):
    return (_split_nibbles(b[:, 6:]) + _split_bits(b[:, 2:6]) - 16) * _halves(b[:, :2])


def _decode_q5_1(b):
    return (_split_nibbles(b[:, 8:]) + _split_bits(b[:, 4:8])) * _halves(b[:, :2]) + _halves(b[:, 2:4])


# ---------------------------------------------------------------- 256-value formats
def _pack_scales(sc, mn):
    """Eight 6-bit scales and minimums [n, 8] -> 12 bytes: four whole pairs, whose upper two
    bits hold the upper bits of the other four, whose lower halves share the last four bytes."""
    sc, mn = sc.astype(np.uint8), mn.astype(np.uint8)
    first = sc[:, :4] | ((sc[:, 4:] >> 4) << 6)
    second = mn[:, :4] | ((mn[:, 4:] >> 4) << 6)
    return np.concatenate([first, second, (sc[:, 4:] & 15) | ((mn[:, 4:] & 15) << 4)], 1)


def _unpack_scales(b):
    low, mid, high = b[:, :4], b[:, 4:8], b[:, 8:]
    sc = np.concatenate([low & 63, (high & 15) | ((low >> 6) << 4)], 1)
    mn = np.concatenate([mid & 63, (high >> 4) | ((mid >> 6) << 4)], 1)
    return sc.astype(np.float32), mn.astype(np.float32)


def _fit_super(x, w, top):
    """Two-level affine fit of x [n, 256] in 8 groups: d, dmin, sc, mn, q of the least error found."""
    n = len(x)
    x3, w3 = x.reshape(n, 8, 32), w.reshape(n, 8, 32)
    s, m = _fit_affine(x3.reshape(-1, 32), w3.reshape(-1, 32), top, AFFINE_TRIES, positive_min=True)
    s, m = s.reshape(n, 8), -m.reshape(n, 8)
    d, dmin = _f16(s.max(1) / 63), _f16(m.max(1) / 63)
    best, best_err = None, None
    for _ in range(3):
        sc = np.clip(np.rint(s / _safe(d)[:, None]), 0, 63)
        mn = np.clip(np.rint(m / _safe(dmin)[:, None]), 0, 63)
        step, base = (d[:, None] * sc)[:, :, None], (dmin[:, None] * mn)[:, :, None]
        q = np.clip(np.rint((x3 + base) / _safe(step)), 0, top)
        err = (w3 * (x3 - step * q + base) ** 2).sum((1, 2))
        if best is None:
            best, best_err = [d, dmin, sc, mn, q], err
        else:
            better = err < best_err
            best_err = np.where(better, err, best_err)
            best = [np.where(better.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)
                    for old, new in zip(best, [d, dmin, sc, mn, q])]
        # least squares of d and dmin for these codes: x ~ d*(sc q) - dmin*mn
        a, b = (sc[:, :, None] * q).reshape(n, -1), np.repeat(mn, 32, 1)
        wf, xf = w, x
        aa, bb, ab = (wf * a * a).sum(1), (wf * b * b).sum(1), (wf * a * b).sum(1)
        ax, bx = (wf * a * xf).sum(1), (wf * b * xf).sum(1)
        det = aa * bb - ab * ab
        ok = det > 1e-6 * aa * bb
        d_new = np.where(ok, (ax * bb - bx * ab) / np.where(ok, det, 1), np.where(aa > 0, ax / _safe(aa), d))
        m_new = np.where(ok, (ax * ab - bx * aa) / np.where(ok, det, 1), dmin)
        d = _f16(np.where(d_new > 0, d_new, d).astype(np.float32))
        dmin = _f16(np.where(m_new > 0, m_new, dmin).astype(np.float32))
    return best


def _pair_nibbles(q):
    """[n, 8, 32] -> 128 bytes: groups 2p and 2p+1 share bytes 32p..32p+31, low and high half."""
    q = q.astype(np.uint8) & 15
    return (q[:, 0::2] | (q[:, 1::2] << 4)).reshape(len(q), 128)


def _encode_q4_k(x, w):
    d, dmin, sc, mn, q = _fit_super(x, w, 15)
    return _join([_half(d), _half(dmin), _pack_scales(sc, mn), _pair_nibbles(q)])


def _encode_q5_k(x, w):
    d, dmin, sc, mn, q = _fit_super(x, w, 31)
    high = ((q.astype(np.uint8) >> 4) << np.arange(8, dtype=np.uint8)[None, :, None]).sum(1).astype(np.uint8)
    return _join([_half(d), _half(dmin), _pack_scales(sc, mn), high, _pair_nibbles(q)])


def _affine_values(b, q):
    sc, mn = _unpack_scales(b[:, 4:16])
    step, base = _halves(b[:, :2]) * sc, _halves(b[:, 2:4]) * mn
    return (q * step[:, :, None] - base[:, :, None]).reshape(len(b), 256)


def _unpair(b):
    b = b.reshape(len(b), 4, 1, 32)
    return np.concatenate([b & 15, b >> 4], 2).reshape(len(b), 8, 32)


def _decode_q4_k(b):
    return _affine_values(b, _unpair(b[:, 16:]).astype(np.float32))


def _decode_q5_k(b):
    high = (b[:, 16:48][:, None, :] >> np.arange(8, dtype=np.uint8)[None, :, None]) & 1
    return _affine_values(b, _unpair(b[:, 48:]).astype(np.float32) + high * np.float32(16))


def _encode_q6_k(x, w):
    n = len(x)
    x3 = x.reshape(n, 16, 16)
    s = _fit_symmetric(x3.reshape(-1, 16), w.reshape(-1, 16), -32, 31, SYMMETRIC_TRIES).reshape(n, 16)
    big = s[np.arange(n), np.abs(s).argmax(1)]
    d = _f16(big / -128)
    sc = np.clip(np.rint(s / _safe(d)[:, None]), -128, 127)
    step = (d[:, None] * sc)[:, :, None]
    q = (np.clip(np.rint(x3 / _safe(step)), -32, 31) + 32).astype(np.uint8)
    q = q.reshape(n, 2, 4, 32)                       # half, quarter, value
    low = np.concatenate([(q[:, :, 0] & 15) | ((q[:, :, 2] & 15) << 4), (q[:, :, 1] & 15) | ((q[:, :, 3] & 15) << 4)], 2)
    high = (q[:, :, 0] >> 4) | ((q[:, :, 1] >> 4) << 2) | ((q[:, :, 2] >> 4) << 4) | ((q[:, :, 3] >> 4) << 6)
    return _join([low.reshape(n, 128), high.reshape(n, 64), sc.astype(np.int8), _half(d)])


def _decode_q6_k(b):
    n = len(b)
    low, high = b[:, :128].reshape(n, 2, 64), b[:, 128:192].reshape(n, 2, 32)
    lo = np.stack([low[:, :, :32] & 15, low[:, :, 32:] & 15, low[:, :, :32] >> 4, low[:, :, 32:] >> 4], 2)
    hi = np.stack([(high >> s) & 3 for s in (0, 2, 4, 6)], 2)
    q = (lo | (hi << 4)).astype(np.float32) - 32
    sc = np.ascontiguousarray(b[:, 192:208]).view(np.int8).astype(np.float32) * _halves(b[:, 208:210])
    return (q.reshape(n, 16, 16) * sc[:, :, None]).reshape(n, 256)


_ENCODE = {"Q4_0": _encode_q4_0, "Q4_1": _encode_q4_1, "Q5_0": _encode_q5_0, "Q5_1": _encode_q5_1,
           "Q8_0": _encode_q8_0, "Q4_K": _encode_q4_k, "Q5_K": _encode_q5_k, "Q6_K": _encode_q6_k}
_DECODE = {"Q4_0": _decode_q4_0, "Q4_1": _decode_q4_1, "Q5_0": _decode_q5_0, "Q5_1": _decode_q5_1,
           "Q8_0": _decode_q8_0, "Q4_K": _decode_q4_k, "Q5_K": _decode_q5_k, "Q6_K": _decode_q6_k}


# ---------------------------------------------------------------- front door
def encode(fmt, x, weight=None):
    """float array [..., columns] -> uint8 array of the blocks in order.

    weight: importance per column ([columns], or broadcastable to x); errors count by it.
    Blocks never cross rows, since a row must be whole blocks.
    """
    x = np.ascontiguousarray(x, np.float32)
    if fmt == "F32":
        return x.astype("<f4").reshape(-1).view(np.uint8)
    if fmt == "F16":
        return x.astype("<f2").reshape(-1).view(np.uint8)
    if fmt == "BF16":                                # round to nearest, ties to even
        u = x.reshape(-1).view(np.uint32)
        return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype("<u2").view(np.uint8)
    _, per, size = FORMATS[fmt]
    if x.shape[-1] % per:
        raise ValueError("%s needs rows of a multiple of %d, not %d" % (fmt, per, x.shape[-1]))
    w = np.ones_like(x) if weight is None else np.broadcast_to(np.asarray(weight, np.float32), x.shape)
    x, w = x.reshape(-1, per), w.reshape(-1, per)
    out = np.empty((len(x), size), np.uint8)
    for a in range(0, len(x), CHUNK // per):
        b = min(len(x), a + CHUNK // per)
        out[a:b] = _ENCODE[fmt](x[a:b], np.ascontiguousarray(w[a:b]) + np.float32(1e-12))
    return out.reshape(-1)


def decode(fmt, raw, count):
    """Stored bytes -> float32 [count]."""
    raw = np.frombuffer(raw, np.uint8) if not isinstance(raw, np.ndarray) else raw
    raw = np.ascontiguousarray(raw).view(np.uint8).reshape(-1)[:size_bytes(fmt, count)]
    if fmt == "F32":
        return raw.view("<f4").astype(np.float32)
    if fmt == "F16":
        return raw.view("<f2").astype(np.float32)
    if fmt == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return _DECODE[fmt](raw.reshape(-1, FORMATS[fmt][2])).reshape(-1)


# ---------------------------------------------------------------- self-check
def self_check():
    """Round trips, and decoders against the package gguf on encoded and on random blocks."""
    import os
    import tempfile
    try:
        import gguf
    except ImportError:
        gguf = None
        print("package gguf is not installed: comparison with it skipped")
    rng = np.random.default_rng(3)
    x = rng.standard_normal((24, 512), dtype=np.float32) * rng.uniform(0.01, 2, (24, 1)).astype(np.float32)
    x[3] = 0
    x[4, :256] = np.abs(x[4, :256]) + 5
    limit = {"F32": 0, "F16": 4e-4, "BF16": 3e-3, "Q8_0": 6e-3, "Q6_K": 0.022, "Q5_K": 0.045, "Q5_1": 0.045,
             "Q5_0": 0.048, "Q4_K": 0.085, "Q4_1": 0.08, "Q4_0": 0.1}
    for fmt, (type_id, per, size) in FORMATS.items():
        raw = encode(fmt, x)
        y = decode(fmt, raw, x.size).reshape(x.shape)
        err = float(np.sqrt(((x - y) ** 2).sum() / (x ** 2).sum()))
        assert err <= limit[fmt], "%s: relative error %g" % (fmt, err)
        note = ""
        if gguf is not None:
            other = gguf.quants.dequantize(raw.reshape(24, -1), gguf.GGMLQuantizationType(type_id)) if per > 1 or fmt == "BF16" else y
            blocks = rng.integers(0, 256, (64, size), dtype=np.uint8)
            if per > 1:                              # random codes, finite scales
                for at in {"Q6_K": [208], "Q8_0": [0], "Q4_0": [0], "Q5_0": [0]}.get(fmt, [0, 2]):
                    blocks[:, at:at + 2] = rng.standard_normal(64).astype("<f2").view(np.uint8).reshape(64, 2)
                theirs = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(type_id)).reshape(-1)
                ours = decode(fmt, blocks, 64 * per)
                assert np.allclose(ours, theirs, rtol=1e-6, atol=1e-6), fmt
            assert np.allclose(other.reshape(y.shape), y, rtol=1e-6, atol=1e-7), fmt
            note = ", equal to package gguf"
        print("%-5s relative error %.4f%s" % (fmt, err, note))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "t.gguf")
        meta = [("general.architecture", STR, "test"), ("a.list", ARR, (STR, ["x", "yz"])), ("a.flag", BOOL, True),
                ("a.f", F32, 0.5), ("a.n", U32, 7), ("a.i", ARR, (I32, [1, -2]))]
        write_gguf(path, meta, [("one", "Q4_K", x.shape, encode("Q4_K", x)), ("two", "F32", (3,), encode("F32", x[0, :3]))])
        f = GGUF(path)
        assert f.meta["a.list"] == ["x", "yz"] and f.meta["a.i"] == [1, -2] and f.meta["a.n"] == 7
        assert f.tensors["one"].shape == x.shape and np.array_equal(f.array("two"), x[0, :3])
        assert f.entries() == meta
        if gguf is not None:
            assert [t.name for t in gguf.GGUFReader(path).tensors] == ["one", "two"]
    print("file round trip ok")


def main():
    if sys.argv[1:] == ["--self-check"]:
        self_check()
    elif len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        f = GGUF(sys.argv[1])
        for k, v in f.meta.items():
            text = repr(v)
            print("%-44s %s" % (k, text if len(text) < 90 else text[:87] + "..."))
        for t in f.tensors.values():
            print("%-36s %-5s %-20s @%d" % (t.name, t.format, t.shape, t.offset))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
