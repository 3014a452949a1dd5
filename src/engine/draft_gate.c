/* Whether drafts pay: see draft_gate.h. */
#include "engine/draft_gate.h"

enum { TURNS = 4, SETTLE = 4, PERIOD_MOST = 1536 };

void fm_draft_gate_init(fm_draft_gate *g, fm_draft_mode mode)
{
    const bool use = mode != FM_DRAFT_OFF;
    *g = (fm_draft_gate){.mode = mode,
                         .use = use,
                         .decided = use,
                         .n_wait = SETTLE,
                         .period = FM_DRAFT_PERIOD_FIRST};
}

/* Microseconds of a token of either way, compared without rounding; within a few percent the outcome stands. */
static bool drafting_is_better(const fm_draft_gate *g)
{
    const double plain = (double)g->us[0] / g->n_token[0],
                 drafting = (double)g->us[1] / g->n_token[1];
    return g->decided ? drafting <= plain * 1.03 : drafting * 1.03 < plain;
}

static void decide(fm_draft_gate *g)
{
    const bool before = g->decided;
    g->decided = drafting_is_better(g);
    g->period = g->decided != before      ? FM_DRAFT_PERIOD_FIRST
                : g->period < PERIOD_MOST ? g->period * 2
                                          : PERIOD_MOST;
    g->n_wait = g->period;
}

void fm_draft_gate_token(fm_draft_gate *g, uint64_t us, bool drafted)
{
    if (g->mode != FM_DRAFT_AUTO) return;
    if (g->n_wait > 0) {
        g->n_wait--;
        if (g->n_wait == 0) {
            g->us[0] = g->us[1] = 0;
            g->n_token[0] = g->n_token[1] = 0;
            g->n_turn = 0;
        }
        return;
    }
    g->us[drafted] += us;
    g->n_token[drafted]++;
    if (++g->n_turn < FM_DRAFT_TURN) return;
    g->n_turn = 0;
    g->turn++;
    /* One way, twice the other, and the first again: a cache that fills meanwhile favours neither. */
    g->use = g->turn == 1 || g->turn == 2 ? !g->decided : g->decided;
    if (g->turn < TURNS) return;
    /* A turn may have been cut short by what the one before had drafted, but never to nothing. */
    if (g->n_token[0] > 0 && g->n_token[1] > 0) decide(g);
    g->turn = 0;
    g->use = g->decided;
}
