"""The training-time model: the text network of Qwen3.5-MoE in plain PyTorch.

Why a second implementation beside the one in transformers: training needs three
things that one does not offer.

* Packed rows.  Many short conversations share one row of the batch, and none of
  them may see its neighbours, because at run time every conversation starts from
  an empty state.  Here the document ids reset the DeltaNet state, the short
  convolution and the attention mask exactly at every boundary.
* A chunked gated DeltaNet made of large batched products (no loop over the rows
  of a chunk), with hand-written gradients for its two sequential parts.
* Experts as two grouped products over tokens sorted by expert.

Parameter names and shapes equal those of transformers' Qwen3_5MoeForCausalLM, so
a state dict moves between the two unchanged; `check_model.py` compares logits.
"""
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

RESET_DECAY = -40.0   # added to the log decay at a document start: e^-40 clears the state
CHUNK = 64            # rows handled at once by the DeltaNet; equals the head size here
SUB = 16              # block size up to which the triangular inverse uses doubling


@dataclass
class TaleConfig:
    """Dimensions of the model.  The defaults are those of the model that ships."""
    vocab_size: int = 3072
    hidden_size: int = 512
    num_layers: int = 8
    full_interval: int = 4
    num_heads: int = 8
    num_kv_heads: int = 2
    head_dim: int = 64
    rotary_dim: int = 32
    rope_theta: float = 1.0e6
    linear_k_heads: int = 4
    linear_v_heads: int = 8
    linear_head_dim: int = 64
    conv_kernel: int = 4
    num_experts: int = 32
    top_k: int = 4
    expert_ff: int = 64
    shared_ff: int = 256
    eps: float = 1e-6
    context: int = 2048

    def to_hf(self):
        """The same dimensions as a transformers text config."""
        from transformers.models.qwen3_5_moe.configuration_qwen3_5_moe import Qwen3_5MoeTextConfig
        r = self.rotary_dim // 2
        sections = [r - 2 * (r // 3), r // 3, r // 3]
        return Qwen3_5MoeTextConfig(
            vocab_size=self.vocab_size, hidden_size=self.hidden_size,
            num_hidden_layers=self.num_layers, num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_kv_heads, head_dim=self.head_dim,
            max_position_embeddings=self.context, rms_norm_eps=self.eps,
            tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta,
                             "partial_rotary_factor": self.rotary_dim / self.head_dim,
                             "mrope_section": sections, "mrope_interleaved": True},
            linear_conv_kernel_dim=self.conv_kernel,
            linear_key_head_dim=self.linear_head_dim, linear_value_head_dim=self.linear_head_dim,
            linear_num_key_heads=self.linear_k_heads, linear_num_value_heads=self.linear_v_heads,
            moe_intermediate_size=self.expert_ff, shared_expert_intermediate_size=self.shared_ff,
            num_experts_per_tok=self.top_k, num_experts=self.num_experts,
            full_attention_interval=self.full_interval)


# ---------------------------------------------------------------- DeltaNet
def block_masks(device):
    """0/1 masks of a CHUNK x CHUNK matrix: the SUB-sized diagonal blocks, then for each
    doubling the lower left quarter that joins two neighbouring blocks."""
    i = torch.arange(CHUNK, device=device)
    diag = (i[:, None] // SUB == i[None, :] // SUB).float()
    joins, size = [], SUB
    while size < CHUNK:
        same = i[:, None] // (2 * size) == i[None, :] // (2 * size)
        joins.append((same & (i[:, None] // size > i[None, :] // size)).float())
        size *= 2
    return diag, joins


class UnitLowerInverse(torch.autograd.Function):
    """(I + A)^-1 for strictly lower triangular A of CHUNK rows, batched.

    Inside blocks of SUB rows: (I+N)(I+N^2)(I+N^4)(I+N^8) with N = -A, exact since N^16 = 0
    and short enough for float32.  Blocks are then joined by R - R O R, O the part between.
    """

    @staticmethod
    def forward(ctx, a):
        diag, joins = block_masks(a.device)
        p = -a * diag
        r = p + torch.eye(CHUNK, device=a.device)
        for _ in range(3):
            p = p @ p
            r = r + r @ p
        for join in joins:
            r = r - r @ (a * join) @ r
        ctx.save_for_backward(r)
        return r

    @staticmethod
    def backward(ctx, grad):
        (r,) = ctx.saved_tensors
        rt = r.transpose(-1, -2)
        return -(rt @ grad @ rt).tril(-1)


class ChunkScan(torch.autograd.Function):
    """States before each chunk: S_0 = 0, S_{c+1} = M_c S_c + N_c.  Shapes [C, G, d, d]."""

    @staticmethod
    def forward(ctx, m, n):
        states = [torch.zeros_like(n[0])]
        for c in range(m.shape[0] - 1):
            states.append(torch.baddbmm(n[c], m[c], states[-1]))
        s = torch.stack(states)
        ctx.save_for_backward(m, s)
        return s

    @staticmethod
    def backward(ctx, grad):
        m, s = ctx.saved_tensors
        n_chunk = m.shape[0]
        d = [torch.zeros_like(grad[0])] * n_chunk      # d[c]: gradient of S_{c+1}
        for c in range(n_chunk - 2, -1, -1):
            nxt = grad[c + 1]
            d[c] = nxt if c == n_chunk - 2 else torch.baddbmm(nxt, m[c + 1].transpose(-1, -2), d[c + 1])
        dn = torch.stack(d)
        return dn @ s.transpose(-1, -2), dn


def delta_rule(q, k, v, g, beta):
    """Gated delta rule from an empty state, chunked.

    q, k, v [B, T, h, d] with q and k of unit length and q already scaled; g (log decay, <= 0)
    and beta [B, T, h].  T must be a multiple of CHUNK.  Returns [B, T, h, d] float32.
    """
    b, t, h, d = v.shape
    n = t // CHUNK

    def chunks(x):   # [B, T, h, ...] -> [C, B*h, CHUNK, ...]
        x = x.float().reshape(b, n, CHUNK, h, -1).permute(1, 0, 3, 2, 4)
        return x.reshape(n, b * h, CHUNK, -1)

    q, k, v, beta = chunks(q), chunks(k), chunks(v), chunks(beta)
    gamma = chunks(g).cumsum(2)                                     # [C, G, CHUNK, 1]
    tri = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).tril()
    decay = (gamma - gamma.transpose(-1, -2)).masked_fill(~tri, float("-inf")).exp()
    kt = k.transpose(-1, -2)
    a = (beta * (k @ kt) * decay).tril(-1)
    inv = UnitLowerInverse.apply(a)
    grow = gamma.exp()
    u = inv @ (beta * v)
    w = inv @ (beta * grow * k)
    last = gamma[:, :, -1:, :]
    kd = ((last - gamma).exp() * k).transpose(-1, -2)               # [C, G, d, CHUNK]
    eye = torch.eye(d, device=q.device)
    s = ChunkScan.apply(last.exp() * eye - kd @ w, kd @ u)
    vn = u - w @ s
    o = (grow * q) @ s + ((q @ kt) * decay) @ vn
    return o.reshape(n, b, h, CHUNK, d).permute(1, 0, 3, 2, 4).reshape(b, t, h, d)


def unit(x):
    x = x.float()
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


class Norm(nn.Module):
    """RMS norm with weights stored around zero: y = (1 + w) x / rms(x)."""

    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(dim)), eps

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1.0 + self.weight)


class PlainNormWeight(nn.Module):
    """Holds the DeltaNet's output norm weight under the name transformers gives it."""

    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))


class DeltaNet(nn.Module):
    def __init__(self, c: TaleConfig):
        super().__init__()
        self.c = c
        key, val = c.linear_k_heads * c.linear_head_dim, c.linear_v_heads * c.linear_head_dim
        self.key, self.val = key, val
        self.conv1d = nn.Conv1d(2 * key + val, 2 * key + val, c.conv_kernel, bias=False, groups=2 * key + val)
        self.dt_bias = nn.Parameter(torch.ones(c.linear_v_heads))
        self.A_log = nn.Parameter(torch.empty(c.linear_v_heads).uniform_(0.01, 16).log())
        self.norm = PlainNormWeight(c.linear_head_dim)
        self.out_proj = nn.Linear(val, c.hidden_size, bias=False)
        self.in_proj_qkv = nn.Linear(c.hidden_size, 2 * key + val, bias=False)
        self.in_proj_z = nn.Linear(c.hidden_size, val, bias=False)
        self.in_proj_b = nn.Linear(c.hidden_size, c.linear_v_heads, bias=False)
        self.in_proj_a = nn.Linear(c.hidden_size, c.linear_v_heads, bias=False)

    def conv(self, u, pos):
        """Causal convolution of 4 taps per channel that does not reach past a document start."""
        w, taps = self.conv1d.weight.squeeze(1), self.c.conv_kernel
        y = u * w[:, taps - 1]
        for back in range(1, taps):
            prev = F.pad(u[:, :-back], (0, 0, back, 0))
            y = y + prev * w[:, taps - 1 - back] * (pos >= back).unsqueeze(-1)
        return F.silu(y)

    def forward(self, x, pos):
        c, (b, t, _) = self.c, x.shape
        xb = x.to(self.in_dtype)
        u = self.conv(F.linear(xb, self.in_proj_qkv.weight.to(xb.dtype)), pos)
        z = F.linear(xb, self.in_proj_z.weight.to(xb.dtype))
        beta = F.linear(x, self.in_proj_b.weight).sigmoid()
        g = -self.A_log.exp() * F.softplus(F.linear(x, self.in_proj_a.weight) + self.dt_bias)
        g = g + RESET_DECAY * (pos == 0).unsqueeze(-1)
        rep, d = c.linear_v_heads // c.linear_k_heads, c.linear_head_dim
        q = unit(u[..., :self.key].reshape(b, t, -1, d)).repeat_interleave(rep, 2) * d ** -0.5
        k = unit(u[..., self.key:2 * self.key].reshape(b, t, -1, d)).repeat_interleave(rep, 2)
        v = u[..., 2 * self.key:].reshape(b, t, -1, d)
        o = delta_rule(q, k, v, g, beta)
        o = o * torch.rsqrt(o.pow(2).mean(-1, keepdim=True) + c.eps) * self.norm.weight
        o = o.reshape(b, t, -1) * F.silu(z.float())
        return F.linear(o.to(xb.dtype), self.out_proj.weight.to(xb.dtype)).float()


# ---------------------------------------------------------------- attention
def rotate(x, cos, sin):
    """Half-split rotation of the first 2*len(cos) dimensions of x [B, h, T, d]."""
    r = cos.shape[-1]
    a, b, rest = x[..., :r], x[..., r:2 * r], x[..., 2 * r:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), -1)


class Attention(nn.Module):
    def __init__(self, c: TaleConfig):
        super().__init__()
        self.c = c
        self.q_proj = nn.Linear(c.hidden_size, c.num_heads * c.head_dim * 2, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, c.num_kv_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, c.num_kv_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.num_heads * c.head_dim, c.hidden_size, bias=False)
        self.q_norm, self.k_norm = Norm(c.head_dim, c.eps), Norm(c.head_dim, c.eps)

    def forward(self, x, cos, sin, mask):
        c, (b, t, _) = self.c, x.shape
        xb = x.to(self.in_dtype)
        qg = F.linear(xb, self.q_proj.weight.to(xb.dtype)).view(b, t, c.num_heads, 2 * c.head_dim)
        q, gate = qg.chunk(2, -1)
        k = F.linear(xb, self.k_proj.weight.to(xb.dtype)).view(b, t, c.num_kv_heads, c.head_dim)
        v = F.linear(xb, self.v_proj.weight.to(xb.dtype)).view(b, t, c.num_kv_heads, c.head_dim)
        q = rotate(self.q_norm(q).transpose(1, 2), cos, sin).to(xb.dtype)
        k = rotate(self.k_norm(k).transpose(1, 2), cos, sin).to(xb.dtype)
        rep = c.num_heads // c.num_kv_heads
        k, v = k.repeat_interleave(rep, 1), v.transpose(1, 2).repeat_interleave(rep, 1)
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        o = o.transpose(1, 2) * torch.sigmoid(gate)
        return F.linear(o.reshape(b, t, -1), self.o_proj.weight.to(xb.dtype)).float()


# ---------------------------------------------------------------- experts
class Permute(torch.autograd.Function):
    """Row gather by a permutation whose gradient is a gather too (no scattered adds)."""

    @staticmethod
    def forward(ctx, x, perm, inverse):
        ctx.save_for_backward(inverse)
        return x[perm]

    @staticmethod
    def backward(ctx, grad):
        (inverse,) = ctx.saved_tensors
        return grad[inverse], None, None


def grouped_product(x, w, offs):
    """Rows of x, sorted by expert, times that expert's matrix: w [E, in, out], offs = row ends."""
    if x.is_cuda:
        return torch._grouped_mm(x, w, offs=offs)
    ends = offs.tolist()
    return torch.cat([x[a:b] @ w[e] for e, (a, b) in enumerate(zip([0] + ends, ends))])


class Router(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(c.num_experts, c.hidden_size))


class Experts(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(c.num_experts, 2 * c.expert_ff, c.hidden_size))
        self.down_proj = nn.Parameter(torch.empty(c.num_experts, c.hidden_size, c.expert_ff))


class SharedExpert(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.shared_ff, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.shared_ff, bias=False)
        self.down_proj = nn.Linear(c.shared_ff, c.hidden_size, bias=False)


class MoE(nn.Module):
    def __init__(self, c: TaleConfig):
        super().__init__()
        self.c = c
        self.gate, self.experts, self.shared_expert = Router(c), Experts(c), SharedExpert(c)
        self.shared_expert_gate = nn.Linear(c.hidden_size, 1, bias=False)

    def forward(self, x, live):
        """x [B, T, H], live [B, T] 1.0 where a real token stands (padding must not count for
        the balance).  Returns output, balance loss, z loss, load [E]."""
        c, shape = self.c, x.shape
        x = x.reshape(-1, c.hidden_size)
        live = live.reshape(-1, 1)
        logits = F.linear(x, self.gate.weight)
        probs = logits.softmax(-1)
        top, idx = probs.topk(c.top_k, -1)
        top = top / top.sum(-1, keepdim=True)
        chosen = torch.zeros_like(probs).scatter(1, idx, 1.0) * live
        count = live.sum().clamp(min=1.0)
        load = chosen.sum(0) / (count * c.top_k)
        balance = c.num_experts * (load.detach() * (probs * live).sum(0) / count).sum()
        z = (logits.logsumexp(-1, keepdim=True).pow(2) * live).sum() / count

        flat = idx.reshape(-1)
        order = torch.argsort(flat, stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=x.device))
        ends = torch.searchsorted(flat[order], torch.arange(c.num_experts, device=x.device), right=True)
        xb = x.to(self.in_dtype)
        rows = xb.unsqueeze(1).expand(-1, c.top_k, -1).reshape(-1, c.hidden_size)
        rows = Permute.apply(rows, order, inverse)
        offs = ends.to(torch.int32)
        gu = grouped_product(rows, self.experts.gate_up_proj.to(xb.dtype).transpose(-1, -2), offs)
        act = F.silu(gu[:, :c.expert_ff]) * gu[:, c.expert_ff:]
        out = grouped_product(act, self.experts.down_proj.to(xb.dtype).transpose(-1, -2), offs)
        out = Permute.apply(out, inverse, order).view(-1, c.top_k, c.hidden_size)
        y = (out.float() * top.unsqueeze(-1)).sum(1)

        s = self.shared_expert
        hs = F.silu(F.linear(xb, s.gate_proj.weight.to(xb.dtype))) * F.linear(xb, s.up_proj.weight.to(xb.dtype))
        shared = F.linear(hs, s.down_proj.weight.to(xb.dtype)).float()
        y = y + torch.sigmoid(F.linear(x, self.shared_expert_gate.weight)) * shared
        return y.view(shape), balance, z, load.detach()


# ---------------------------------------------------------------- the network
class Layer(nn.Module):
    def __init__(self, c: TaleConfig, index):
        super().__init__()
        self.full = (index + 1) % c.full_interval == 0
        if self.full:
            self.self_attn = Attention(c)
        else:
            self.linear_attn = DeltaNet(c)
        self.mlp = MoE(c)
        self.input_layernorm = Norm(c.hidden_size, c.eps)
        self.post_attention_layernorm = Norm(c.hidden_size, c.eps)

    def forward(self, h, pos, live, cos, sin, mask):
        x = self.input_layernorm(h)
        h = h + (self.self_attn(x, cos, sin, mask) if self.full else self.linear_attn(x, pos))
        y, balance, z, load = self.mlp(self.post_attention_layernorm(h), live)
        return h + y, balance, z, load


def set_dtype(module, dtype):
    """Choose the type the large products of a network run in."""
    module.in_dtype = dtype
    for m in module.modules():
        if isinstance(m, (DeltaNet, Attention, MoE)):
            m.in_dtype = dtype


@torch.no_grad()
def reset(module):
    """Normal(0, 0.02) matrices; projections into the residual stream shrunk by sqrt(2L)."""
    for name, p in module.named_parameters():
        if p.dim() < 2:
            continue
        std = 0.02
        if name.endswith(("o_proj.weight", "out_proj.weight", "down_proj", "down_proj.weight")):
            std /= (2 * module.c.num_layers) ** 0.5
        p.normal_(0.0, 0.3 if "conv1d" in name else std)


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c.num_layers))
        self.norm = Norm(c.hidden_size, c.eps)


def target_weight(doc, weight, ahead):
    """Loss weight of the token `ahead` places on [B, T - ahead], zero where another document stands there."""
    return weight[:, ahead:] * ((doc[:, ahead:] == doc[:, :-ahead]) & (doc[:, ahead:] >= 0))


def mean_over(x, w):
    return (x * w).sum() / w.sum().clamp(min=1.0)


def token_loss(logits, ids, doc, weight, ahead):
    """Weighted loss of the token `ahead` places on, and the loss on tokens of weight 1 alone."""
    w = target_weight(doc, weight, ahead)
    ce = F.cross_entropy(logits[:, :-ahead].reshape(-1, logits.shape[-1]), ids[:, ahead:].reshape(-1),
                         reduction="none").view(w.shape)
    return mean_over(ce, w), mean_over(ce.detach(), (w > 0.99).float())


class Tale(nn.Module):
    """The whole model.  `in_dtype` is the type the large products run in."""

    def __init__(self, c: TaleConfig, in_dtype=torch.bfloat16):
        super().__init__()
        self.c, self.model = c, Body(c)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        set_dtype(self, in_dtype)
        reset(self)

    def places(self, doc):
        """Of rows of documents doc [B, T]: place inside the document, rotation, attention mask."""
        c = self.c
        at = torch.arange(doc.shape[1], device=doc.device)
        start = torch.ones_like(doc, dtype=torch.bool)
        start[:, 1:] = doc[:, 1:] != doc[:, :-1]
        first = torch.where(start, at, 0).cummax(1).values
        pos = at - first                                       # place inside the document
        mask = ((doc.unsqueeze(2) == doc.unsqueeze(1)) & (at[:, None] >= at[None, :])).unsqueeze(1)
        r = c.rotary_dim // 2
        freq = c.rope_theta ** (-torch.arange(r, device=doc.device).float() / r)
        angle = at.float()[:, None] * freq                     # rotation is relative: row positions do
        return pos, angle.cos(), angle.sin(), mask

    def hidden(self, ids, doc):
        """Final normed hidden states [B, T, H].  doc [B, T]: conversation number, -1 for padding."""
        pos, cos, sin, mask = self.places(doc)
        live = (doc >= 0).float()
        h = self.model.embed_tokens(ids).float()
        balance = z = 0.0
        loads = []
        for layer in self.model.layers:
            h, bal, zz, load = layer(h, pos, live, cos, sin, mask)
            balance, z = balance + bal, z + zz
            loads.append(load)
        n = len(self.model.layers)
        return self.model.norm(h), balance / n, z / n, torch.stack(loads)

    def forward(self, ids, doc):
        """Logits of every position (evaluation)."""
        h = self.hidden(ids, doc)[0]
        return F.linear(h, self.lm_head.weight)

    def head(self, h):
        """Logits of final normed states, in the type of the large products."""
        return F.linear(h.to(self.in_dtype), self.lm_head.weight.to(self.in_dtype)).float()

    def losses(self, ids, doc, weight):
        """Weighted next-token loss, balance loss, z loss, load [L, E], loss on weight-1 tokens."""
        h, balance, z, load = self.hidden(ids, doc)
        loss, answers = token_loss(self.head(h), ids, doc, weight, 1)
        return loss, balance, z, load, answers


class Draft(nn.Module):
    """The draft layer: guesses the token after the next from the model's final normed state and the
    next token.  Names are those of published checkpoints behind the prefix "mtp.".

    One position is fc [rms(embedding of the next token), rms(state)], then a layer with full
    attention over the positions so far, a norm, and the model's own output matrix.
    """

    def __init__(self, c: TaleConfig, in_dtype=torch.bfloat16):
        super().__init__()
        self.c = c
        self.pre_fc_norm_embedding, self.pre_fc_norm_hidden = Norm(c.hidden_size, c.eps), Norm(c.hidden_size, c.eps)
        self.fc = nn.Linear(2 * c.hidden_size, c.hidden_size, bias=False)
        self.layers = nn.ModuleList([Layer(c, c.full_interval - 1)])      # an index of full attention
        self.norm = Norm(c.hidden_size, c.eps)
        set_dtype(self, in_dtype)

    def start_from(self, model):
        """Random matrices, and the norm the model's head is used to.  In a short trial the weights of the
        last attention layer were a worse beginning."""
        reset(self)
        self.norm.load_state_dict(model.model.norm.state_dict())

    def forward(self, model, state, ids, doc):
        """Normed states [B, T, H] whose logits at t are of the token at t + 2; `state` [B, T, H] as
        model.hidden gives it.  A document's last position has no next token: what stands there is
        never attended to and does not count for the balance."""
        follow = torch.zeros_like(doc, dtype=torch.bool)
        follow[:, :-1] = (doc[:, 1:] == doc[:, :-1]) & (doc[:, 1:] >= 0)
        pos, cos, sin, mask = model.places(doc)
        embedding = model.model.embed_tokens(ids.roll(-1, 1)).float()
        x = torch.cat((self.pre_fc_norm_embedding(embedding), self.pre_fc_norm_hidden(state)), -1)
        m = F.linear(x.to(self.in_dtype), self.fc.weight.to(self.in_dtype)).float()
        h, balance, z, load = self.layers[0](m, pos, follow.float(), cos, sin, mask)
        return self.norm(h), balance, z, load.unsqueeze(0)
