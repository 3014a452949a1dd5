"""Compare the training-time model with transformers on random weights (CPU, float32).

Two properties are checked: the logits of one sequence equal transformers', and a
sequence packed behind another one gives the same logits as when it stands alone.
The same for the draft layer, beside one made of transformers' parts.
"""
import torch

from model import Draft, Tale, TaleConfig


def check_draft(model, ids):
    """The draft layer over random states; transformers has its parts but leaves the layer itself out."""
    from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe as hf
    c, (b, t) = model.c, ids.shape
    ours = Draft(c, torch.float32).eval()
    with torch.no_grad():
        for p in ours.parameters():
            p.copy_(torch.randn_like(p) * (0.08 if p.dim() >= 2 else 0.1))
    config = c.to_hf()
    config._attn_implementation = config._experts_implementation = "eager"
    norms = {n: hf.Qwen3_5MoeRMSNorm(c.hidden_size, eps=c.eps) for n in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")}
    ref = torch.nn.ModuleDict({**norms, "fc": torch.nn.Linear(2 * c.hidden_size, c.hidden_size, bias=False), "layers":
                               torch.nn.ModuleList([hf.Qwen3_5MoeDecoderLayer(config, c.full_interval - 1)])}).eval()
    ref.load_state_dict(ours.state_dict())
    rotary, state, doc = hf.Qwen3_5MoeTextRotaryEmbedding(config), torch.randn(b, t, c.hidden_size), torch.zeros_like(ids)

    def reference(ids, state):
        """States of every position that has a next token."""
        x = torch.cat([ref["pre_fc_norm_embedding"](model.model.embed_tokens(ids[:, 1:])),
                       ref["pre_fc_norm_hidden"](state[:, :-1])], -1)
        m, n = ref["fc"](x), ids.shape[1] - 1
        mask = torch.full((n, n), float("-inf")).triu(1)[None, None]
        place = torch.arange(n).expand(3, b, n)
        return ref["norm"](ref["layers"][0](m, position_embeddings=rotary(m, place), attention_mask=mask))

    with torch.no_grad():
        a, want = ours(model, state, ids, doc)[0][:, :-1], reference(ids, state)
        print("draft, alone:  max |difference| %.2e of max %.2f" % ((a - want).abs().max(), want.abs().max()))
        assert (a - want).abs().max() < 1e-3 * want.abs().max()
        doc[:, 100:] = 1
        both = ours(model, state, ids, doc)[0]
        first, second = reference(ids[:, :100], state[:, :100]), reference(ids[:, 100:], state[:, 100:])
        apart = max((both[:, :99] - first).abs().max(), (both[:, 100:-1] - second).abs().max())
        print("draft, packed: max |difference| %.2e" % apart)
        assert apart < 1e-3 * want.abs().max()


def main():
    from transformers import Qwen3_5MoeForCausalLM
    torch.manual_seed(0)
    c = TaleConfig(vocab_size=512, hidden_size=128, num_heads=4, head_dim=32, rotary_dim=16,
                   num_layers=4, num_experts=8, top_k=2, expert_ff=32, shared_ff=64,
                   linear_k_heads=2, linear_v_heads=4, linear_head_dim=32)
    ours = Tale(c, torch.float32).eval()
    with torch.no_grad():
        for p in ours.parameters():
            if p.dim() >= 2:
                p.mul_(4.0)
            else:
                p.add_(0.1 * torch.randn_like(p))
    ref = Qwen3_5MoeForCausalLM(c.to_hf()).eval().float()
    missing = ref.load_state_dict(ours.state_dict(), strict=False)
    assert not missing.missing_keys and not missing.unexpected_keys, missing
    ids = torch.randint(0, 512, (2, 256))
    doc = torch.zeros_like(ids)
    with torch.no_grad():
        a, b = ours(ids, doc), ref(ids).logits
    print("alone:  max |difference| %.2e of max |logit| %.2f" % ((a - b).abs().max(), b.abs().max()))
    assert (a - b).abs().max() < 2e-3 * b.abs().max()
    doc[:, 100:] = 1
    with torch.no_grad():
        packed, alone = ours(ids, doc)[:, 100:], ref(ids[:, 100:]).logits
    print("packed: max |difference| %.2e" % (packed - alone).abs().max())
    assert (packed - alone).abs().max() < 2e-3 * b.abs().max()
    loss = ours.losses(ids, doc, torch.ones(ids.shape))
    ref_loss = torch.nn.functional.cross_entropy(b[:, :-1].reshape(-1, 512), ids[:, 1:].reshape(-1))
    ours.losses(ids, torch.zeros_like(ids), torch.ones(ids.shape))[0].backward()
    ref.train()
    out = ref(ids).logits
    torch.nn.functional.cross_entropy(out[:, :-1].reshape(-1, 512), ids[:, 1:].reshape(-1)).backward()
    grads = dict(ref.named_parameters())
    worst = max(((p.grad - grads[n].grad).norm() / (grads[n].grad.norm() + 1e-12)).item()
                for n, p in ours.named_parameters())
    print("loss %.4f against %.4f, worst relative gradient difference %.1e" % (loss[0].item(), ref_loss.item(), worst))
    assert worst < 2e-2
    check_draft(ours, ids)


if __name__ == "__main__":
    main()
