//! The methods. One line each.

use super::{
    Method, ab, at, attention_relation, bce, byot, cc, ce, codistill, cosine, crd, cs_kd, dist, dkd, fitnets, fsp, ft,
    kd, mlkd, mse_logits, nkd, nst, ofa, ofd, pkt, ps_kd, review, rkd_a, rkd_d, simkd, soft_dtw, sp, srrl, tat, tf_kd,
    tinybert_attention, tinybert_hidden, vid, wsld,
};

/// Every method that a term can name.
#[rustfmt::skip]
pub static METHODS: &[&Method] = &[
    &ce::METHOD,
    &bce::METHOD,
    // Answers.
    &kd::METHOD,
    &mse_logits::METHOD,
    &dkd::METHOD,
    &nkd::METHOD,
    &dist::METHOD,
    &mlkd::METHOD,
    &wsld::METHOD,
    &ofa::METHOD,
    &srrl::METHOD,
    &codistill::METHOD,
    // Features.
    &ab::METHOD,
    &fitnets::METHOD,
    &at::METHOD,
    &ofd::METHOD,
    &review::METHOD,
    &vid::METHOD,
    &simkd::METHOD,
    &nst::METHOD,
    &fsp::METHOD,
    &ft::METHOD,
    &cosine::METHOD,
    // Relations.
    &rkd_d::METHOD,
    &rkd_a::METHOD,
    &sp::METHOD,
    &cc::METHOD,
    &pkt::METHOD,
    &crd::METHOD,
    // Sequences and text.
    &tat::METHOD,
    &soft_dtw::METHOD,
    &tinybert_attention::METHOD,
    &tinybert_hidden::METHOD,
    &attention_relation::METHOD,
    // A network's own.
    &byot::METHOD,
    &tf_kd::METHOD,
    &ps_kd::METHOD,
    &cs_kd::METHOD,
];
