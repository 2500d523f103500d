#!/usr/bin/env python3
# Gradients of two tiny models by torch's own differentiation, in double precision, for
# tests/test_train.c, which makes the same weights. Made with torch 1.13.0:
#   python3 tests/golden/train.py >tests/golden/train.txt
import math
import torch

torch.set_default_dtype(torch.float64)
V, D, L, H, K, C, F, T, B = 61, 12, 3, 4, 2, 6, 20, 70, 2
EPS, BASE = float(torch.tensor(1e-5, dtype=torch.float32)), 10000.0


def numbers(seed, n, scale, mean):
    out = []
    for _ in range(n):
        seed = (seed * 1664525 + 1013904223) & 0xffffffff
        out.append(mean + scale * ((seed >> 8) / 2.0**24 - 0.5))
    return torch.tensor(out, dtype=torch.float32).double() if n else None


def tensors(norms, tied):
    list_ = [("token_embd.weight", (V, D)), ("output_norm.weight", (D,))]
    if not tied:
        list_.append(("output.weight", (V, D)))
    for i in range(L):
        p = "blk.%d." % i
        list_ += [(p + "attn_norm.weight", (D,)), (p + "attn_q.weight", (H * C, D)),
                  (p + "attn_k.weight", (K * C, D)), (p + "attn_v.weight", (K * C, D)),
                  (p + "attn_output.weight", (D, H * C))]
        if norms:
            list_ += [(p + "attn_q_norm.weight", (C,)), (p + "attn_k_norm.weight", (C,))]
        list_ += [(p + "ffn_norm.weight", (D,)), (p + "ffn_gate.weight", (F, D)),
                  (p + "ffn_up.weight", (F, D)), (p + "ffn_down.weight", (D, F))]
    return list_


def make(norms, tied, seed):
    w = {}
    for name, shape in tensors(norms, tied):
        n = math.prod(shape)
        code = sum((i + 1) * ord(c) for i, c in enumerate(name))
        w[name] = numbers(seed + code, n, 1.2, 1.0 if len(shape) == 1 else 0.0).reshape(shape)
    return w


def norm(x, w):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPS) * w


def rope(x, halves):  # [B,T,heads,C]
    angle = torch.arange(T)[:, None] * BASE ** (-2.0 * torch.arange(C // 2) / C)
    c, s = torch.cos(angle)[None, :, None], torch.sin(angle)[None, :, None]
    if halves:
        a, b = x[..., :C // 2], x[..., C // 2:]
        return torch.cat([a * c - b * s, a * s + b * c], -1)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * c - b * s, a * s + b * c], -1).flatten(-2)


def forward(w, ids, halves, windows):
    x = w["token_embd.weight"][ids]
    at = torch.arange(T)
    for i in range(L):
        p = "blk.%d." % i
        n = norm(x, w[p + "attn_norm.weight"])
        q = (n @ w[p + "attn_q.weight"].T).view(B, T, H, C)
        k = (n @ w[p + "attn_k.weight"].T).view(B, T, K, C)
        v = (n @ w[p + "attn_v.weight"].T).view(B, T, K, C)
        if p + "attn_q_norm.weight" in w:
            q, k = norm(q, w[p + "attn_q_norm.weight"]), norm(k, w[p + "attn_k_norm.weight"])
        q, k = rope(q, halves), rope(k, halves)
        k, v = k.repeat_interleave(H // K, 2), v.repeat_interleave(H // K, 2)
        s = torch.einsum("bthc,bjhc->bhtj", q, k) / math.sqrt(C)
        seen = at[None] <= at[:, None]
        if windows[i]:
            seen = seen & (at[None] > at[:, None] - windows[i])
        s = s.masked_fill(~seen, -math.inf).softmax(-1)
        o = torch.einsum("bhtj,bjhc->bthc", s, v).reshape(B, T, H * C)
        x = x + o @ w[p + "attn_output.weight"].T
        n = norm(x, w[p + "ffn_norm.weight"])
        g, u = n @ w[p + "ffn_gate.weight"].T, n @ w[p + "ffn_up.weight"].T
        x = x + (torch.nn.functional.silu(g) * u) @ w[p + "ffn_down.weight"].T
    head = w.get("output.weight", w["token_embd.weight"])
    return norm(x, w["output_norm.weight"]) @ head.T


ids, state = [], 99
for _ in range(B * (T + 1)):
    state = (state * 1664525 + 1013904223) & 0xffffffff
    ids.append((state >> 8) % V)
ids = torch.tensor(ids).view(B, T + 1)
teacher = forward(make(False, True, 7), ids[:, :-1], False, [0] * L).detach()

for name, norms, tied, halves, windows, kl, ce, t in [
        ("llama", False, True, False, [0, 0, 0], 0, 1, 1),
        ("qwen3", True, False, True, [20, 0, 65], 0.7, 0.3, 2)]:
    w = make(norms, tied, 1)
    for x in w.values():
        x.requires_grad_(True)
    z = forward(w, ids[:, :-1], halves, windows)
    hard = torch.nn.functional.cross_entropy(z.reshape(-1, V), ids[:, 1:].reshape(-1))
    p, q = (teacher / t).log_softmax(-1), (z / t).log_softmax(-1)
    soft = (p.exp() * (p - q)).sum(-1).mean()
    (kl * t * t * soft + ce * hard).backward()
    print("model", name, "%.10g %.10g" % (hard, soft))
    for tensor, _ in tensors(norms, tied):
        g = w[tensor].grad.flatten()
        marks = torch.tensor([float(i * 7 % 11 - 5) for i in range(len(g))])
        print(tensor, "%.10g %.10g" % (g.norm(), g @ marks))
